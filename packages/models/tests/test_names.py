import re
from uuid import UUID

from poiesis_models import labels, paths
from poiesis_models.podstatus import ContainerWait, container_ends, container_waits, running_containers

TASK = UUID("01234567-89ab-cdef-0123-456789abcdef")


def test_every_name_is_a_valid_job_name():
    nonce = "f" * labels.NONCE_CHARACTERS
    secrets = (labels.secret_name(TASK, nonce), labels.content_secret_name(TASK, nonce, 99))
    for name in (labels.object_name(TASK), *secrets):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= 253
    assert len(labels.object_name(TASK)) <= 52


def test_one_selector_finds_what_carries_the_labels():
    key, _, value = labels.task_selector(TASK).partition("=")
    assert labels.task_labels(TASK)[key] == value


def test_container_path_maps_to_one_volume_path():
    assert paths.data_path("/data/a.txt") == "/task/root/data/a.txt"
    assert paths.data_subpath("/data") == "root/data"


def test_pod_status_lists_ended_waiting_and_running_containers():
    message = (
        '{"exit_code":7,"signal":0,"oom":false,"term":false,"start_ns":1,"end_ns":2,'
        '"max_rss_kb":1,"user_us":1,"sys_us":1}'
    )
    pod = {
        "status": {
            "initContainerStatuses": [
                {"name": "trec", "state": {"running": {}}},
                {"name": "executor-0", "state": {"terminated": {"exitCode": 0, "message": message}}},
                {"name": "executor-1", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
                {
                    "name": "executor-2",
                    "state": {"waiting": {"reason": "ErrImagePull", "message": "no such tag"}},
                },
                {"name": "executor-3", "state": {"waiting": {"reason": "PodInitializing"}}},
            ],
            "containerStatuses": [{"name": "pause", "state": {}}],
        }
    }
    ends = container_ends(pod)
    assert ends["executor-0"].record is not None
    assert ends["executor-0"].record.exit_code == 7
    assert (ends["executor-1"].exit_code, ends["executor-1"].reason, ends["executor-1"].record) == (
        137,
        "OOMKilled",
        None,
    )
    assert container_waits(pod) == {
        "executor-2": ContainerWait(name="executor-2", reason="ErrImagePull", message="no such tag")
    }
    assert running_containers(pod) == {"trec"}
