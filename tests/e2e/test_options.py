"""The options that scripts and people rely on most are there, by these names, with help. What each does is the matter of the
other tests: one that no test here uses is not offered in earnest, and fails the last one."""

import json
import pathlib
import re

import pytest

CREATE = """
    add-host attach cap-add cap-drop cidfile cpus device dns entrypoint env env-file health-cmd health-interval
    health-retries health-start-period health-timeout help hostname init interactive label memory mount name network
    pids-limit platform privileged publish publish-all pull quiet read-only replace restart rm security-opt shm-size
    stop-signal stop-timeout sysctl tmpfs tty ulimit user userns volume workdir
""".split()
RUN = CREATE + "detach sig-proxy".split()
EXEC = "detach env env-file interactive latest tty user workdir".split()
OFFERED = [("run", RUN), ("create", CREATE), ("exec", EXEC)]


@pytest.fixture(scope="module")
def declared():
    """kelp's own declaration, by command: name of an option → the option."""
    import subprocess
    from harness import programs
    text = subprocess.run([programs.program("kelp"), "__dump-options"], capture_output=True, text=True, check=True).stdout
    return {command["name"]: {option["name"]: option for option in command["options"]}
            for command in json.loads(text)["commands"]}


@pytest.mark.parametrize("command,names", OFFERED, ids=[command for command, _ in OFFERED])
def test_offered_with_help(bare_kelp, declared, command, names):
    text = bare_kelp(command, "--help").out
    for name in names:
        if name == "help":
            continue
        assert name in declared[command] and declared[command][name]["help"], name
        assert re.search(rf"(^|[ ,])--{name}([ =,\[]|$)", text, re.M), f"kelp {command} --help does not name --{name}"


@pytest.mark.parametrize("command,names", OFFERED, ids=[command for command, _ in OFFERED])
def test_used_in_a_test(declared, command, names):
    text = "".join(path.read_text() for path in pathlib.Path(__file__).parent.glob("test_*.py") if path != pathlib.Path(__file__))
    for name in names:
        option = declared[command].get(name, {})
        forms = [f"--{name}"] + [f"-{option[key]}" for key in ("letter",) if option.get(key)]
        assert name == "help" or any(re.search(rf"""["']{re.escape(form)}["'=]""", text) for form in forms), \
            f"no test uses --{name}"
