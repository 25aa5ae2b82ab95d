"""Fixtures of the tests that run the programs. See HACKING.md, "Tests"."""

import os
import pathlib
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.umask(0o022)

from harness import images, leaks, needs, processes, programs, registry as registry_module, root_agent  # noqa: E402

_skipped = set()


def pytest_configure(config):
    if os.getuid() == 0 and os.environ.get("KELP_TEST_V2") != "root":  # see tests/runtime/test_cgroup_v2.py
        pytest.exit("these tests are those of an ordinary user: run contrib/check, or tests/run, which drop to one", 4)
    processes.become_subreaper()
    config.addinivalue_line("markers", "slow: takes longer than the rest; KELP_TEST_FULL makes some of them larger")
    config.addinivalue_line("markers", "leaves(reason): the test leaves something on purpose")
    config.addinivalue_line("markers", "not_nested: makes no sense for a runtime in a user namespace that was made for it")


def pytest_runtest_logreport(report):
    if report.skipped and isinstance(report.longrepr, tuple):
        _skipped.add(report.longrepr[2].removeprefix("Skipped: "))


def _unexpected():
    expected = needs.expected_names()
    return sorted(reason for reason in _skipped
                  if not (reason.startswith("needs ") and reason[6:].split(": ")[0] in expected))


def pytest_sessionfinish(session, exitstatus):
    if os.environ.get("CI") == "true" and exitstatus == 0 and _unexpected():
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    if _unexpected():
        terminalreporter.section("skips that tests/expected-skips.txt does not list", yellow=True)
        for reason in _unexpected():
            terminalreporter.line(reason)


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    setattr(item, f"report_{call.when}", outcome.get_result())


@pytest.fixture(scope="session")
def session_dir():
    path = pathlib.Path(tempfile.mkdtemp(prefix="kt-s", dir="/tmp"))
    yield path
    leaks.remove_tree(path)


@pytest.fixture
def place():
    """A short directory of the test's own: a socket below it must fit into 107 bytes."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="kt-", dir="/tmp"))
    yield path
    leaks.remove_tree(path)


@pytest.fixture
def kelp_factory(place, request):
    """Makes kelps with directories of their own; after the test everything is removed and must be gone in a second."""
    needs.need("userns")
    baseline, made = leaks.Baseline(), []

    def make():
        path = place / f"k{len(made)}"
        path.mkdir(mode=0o700)
        made.append(programs.Kelp(path))
        return made[-1]

    yield make
    failed = getattr(getattr(request.node, "report_call", None), "failed", False)
    try:
        left_running = [str(kelp("rm", "-f", "-a", "-t", "0", code=None, timeout=60)) for kelp in made
                        if (kelp.store / "containers").is_dir() and any((kelp.store / "containers").iterdir())]
        for kelp in made:
            kelp.end_children()
        left = baseline.check(made)
    finally:
        for kelp in made:
            kelp.end_children()
        processes.kill_all()
    if left and not failed:
        pytest.fail("left after the test:\n" + left + "\n" + "\n".join(left_running), pytrace=False)


@pytest.fixture
def kelp(kelp_factory, busybox_archive):
    """A kelp that has the image `busybox`."""
    made = kelp_factory()
    made("load", "-q", "-i", busybox_archive)
    return made


@pytest.fixture
def bare_kelp(kelp_factory):
    """A kelp with an empty store."""
    return kelp_factory()


@pytest.fixture(scope="session")
def busybox_archive(session_dir):
    return images.busybox_image().write_archive(session_dir / "busybox.tar", "localhost/busybox:latest")


@pytest.fixture(scope="session")
def twenty_layers_archive(session_dir):
    return images.many_layers_image(20).write_archive(session_dir / "layers.tar", "localhost/layers:latest")


@pytest.fixture(scope="session")
def nginx_archive():
    return images.debian_nginx_archive()


def _registry(session_dir, name, **options):
    made = registry_module.Registry(session_dir / name, **options)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def registry(session_dir):
    yield from _registry(session_dir, "registry")


@pytest.fixture(scope="session")
def tls_registry(session_dir):
    yield from _registry(session_dir, "registry-tls", tls=True)


@pytest.fixture(scope="session")
def password_registry(session_dir):
    yield from _registry(session_dir, "registry-auth", user="someone", password="secret")


@pytest.fixture(scope="session")
def busybox_layout(session_dir):
    return images.busybox_image().write_layout(session_dir / "busybox-layout", "latest")


@pytest.fixture
def agent():
    """Does as root what only root can: a client in another network namespace, a mount on the host."""
    needs.need("root-agent")
    return root_agent.Agent(os.environ["KELP_TEST_ROOT_AGENT"])
