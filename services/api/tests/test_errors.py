from poiesis_api import errors
from poiesis_api.errors import HTTP_STATUS, TesError


def subclasses(kind):
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def test_every_error_has_its_status():
    assert set(subclasses(TesError)) == set(HTTP_STATUS)


def test_an_error_is_a_sentence_with_a_field():
    error = errors.InvalidTask("executors[0].image: is empty", "executors[0].image")
    assert (str(error), error.field) == ("executors[0].image: is empty", "executors[0].image")
