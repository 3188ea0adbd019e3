"""What mosquitto's tests of persistence ask of a store: how it is set up. They look into mosquitto's own database, too; of a store of
another kind that holds nothing, so those checks do nothing: that a test's clients get what they are owed is seen on the wire."""

import pathlib
from contextlib import contextmanager

dir_in, dir_out = 0, 1


def init(port, *_, **__):
    cleanup(port)


def cleanup(port, *_, **__):
    pathlib.Path(f"{port}.db").unlink(missing_ok=True)
    return 0


def write_config(filename, port, additional_config_entries={}):
    with open(filename, "w") as file:
        file.write(f"listener {port}\nallow_anonymous true\npersistence true\npersistence_file {port}.db\n")
        for key, value in additional_config_entries.items():
            file.write(f"{key} {value}\n")


@contextmanager
def get_connection(*_, **__):
    yield None


def check_counts(*_, **__):
    pass


check_base_msg = check_client = check_client_msg = check_subscription = check_version_infos = check_counts


def __getattr__(name):
    """Stages of a message in mosquitto's database, which only the checks above are told."""
    if name.startswith("ms_"):
        return 0
    raise AttributeError(name)
