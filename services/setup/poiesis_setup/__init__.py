"""Create, check and renew the Secrets of a release."""
