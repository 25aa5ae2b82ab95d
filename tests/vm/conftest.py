"""The test machine and scripts in it; see machine.py."""

import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import machine as machine_module  # noqa: E402
from harness import needs, programs  # noqa: E402

def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that two processes end at about the same time."""
    items.sort(key=lambda item: item.path.name != "test_many.py")


@pytest.fixture(scope="session")
def machine_programs(tmp_path_factory, busybox_archive):
    """What is copied into the machine: kelp's programs, busybox and an image of it."""
    needs.need("user-mode-linux")
    needs.need("test-machine")
    place = tmp_path_factory.mktemp("machine")
    for name in ("kelp", "kelp-oci", "kelp-monitor", "kelp-image", "kelp-init"):
        subprocess.run(["strip", "-o", str(place / name), programs.program(name)], check=True)
    shutil.copy(busybox_archive, place / "busybox.tar")
    shutil.copy(needs.find_program("busybox"), place)
    return place


def boot(programs_dir, **options):
    return machine_module.Machine(machine_module.disk(needs.cache_dir()), programs_dir, **options)


@pytest.fixture(scope="session")
def rig(machine_programs):
    """A machine with systemd and login sessions; booted once for all tests of this process."""
    with boot(machine_programs) as made:
        assert made.run("kelp load -q -i /opt/kelp/busybox.tar", "bare").status == 0
        yield made


@pytest.fixture(scope="session")
def controllers(rig):
    """The cgroup controllers that the machine's kernel has."""
    return rig.run("cat /sys/fs/cgroup/cgroup.controllers", "root").out.split()


def runner(machine):
    def call(script, mode="session", status=0, **more):
        done = machine.run(script, mode, **more)
        print(f"--- {mode}: {script}\nexit {done.status}\n{done.out}{done.err}")
        if status is not None:
            assert done.status == status
        return done

    return call


def clean(machine):
    """Removes the containers of the tester; no process, cgroup, unit or state of any may be left."""
    left = machine.run("", "clean").out
    assert left == "", f"left in the machine:\n{left}"


@pytest.fixture
def run(rig):
    """Runs a script in the machine and says all of it when the test fails; nothing of containers is left."""
    yield runner(rig)
    clean(rig)
