"""Other engines on kelp-oci: podman and buildah as an ordinary user, containerd as root (tests/runtime/engines/drive.py).

ENGINE_RUNTIME=crun tests/run tests/runtime/test_engines.py     the same with a peer, to tell whose fault it is
"""

import os
import shutil

import pytest

from harness import images, needs, programs
from runtime.engines import drive

PROGRAMS = {"podman": ["podman", "conmon"], "buildah": ["buildah", "podman"],
            "containerd": ["containerd", "ctr", "containerd-shim-runc-v2"]}
CHECKS = [(engine, check) for engine in drive.ENGINES for check in drive.checks_of(engine)]


def runtime_program(place):
    peer = os.environ.get("ENGINE_RUNTIME")
    if peer:
        return needs.find_program(peer)
    # Root of another user namespace than ours executes it, from a directory that it can reach.
    return shutil.copy(programs.program("kelp-oci"), place / "kelp-oci")


@pytest.fixture(scope="session")
def verdicts(session_dir, request):
    """engine → what its run said of each check; each engine runs once."""
    said = {}

    def of(engine):
        for name in PROGRAMS[engine]:
            needs.need(f"program:{name}")
        needs.need("root-agent")
        needs.need("subids")
        if engine not in said:
            from harness import root_agent
            place = session_dir / f"engine-{engine}"
            place.mkdir()
            session_dir.chmod(0o755)
            archive = images.busybox_image().write_archive(place / "busybox.tar", drive.IMAGE)
            agent = root_agent.Agent(os.environ["KELP_TEST_ROOT_AGENT"])
            said[engine] = agent("engine", timeout=600, engine=engine, runtime=str(runtime_program(place)),
                                 place=str(place), archive=str(archive))
        return said[engine]

    return of


@pytest.mark.parametrize("engine,check", CHECKS, ids=[f"{engine}-{check}" for engine, check in CHECKS])
def test_engine(verdicts, engine, check):
    said = verdicts(engine)
    assert said["prepare"] == "", said["prepare"]
    assert said[check] == "", said[check]
