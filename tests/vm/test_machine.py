"""The test machine itself: whatever happens in it or to its owner, nobody waits for ever, and nothing of it stays."""

import os
import signal
import subprocess
import sys

import conftest as vm
import pytest

from harness.waiting import until


def processes_of(machine):
    """Those whose command line names the machine's directory."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and str(machine).encode() in open(f"/proc/{entry}/cmdline", "rb").read():
                found.append(int(entry))
        except OSError:
            pass
    return found


@pytest.fixture
def machine(machine_programs):
    made = vm.boot(machine_programs, init="plain")
    yield made
    made.close()
    assert not made.place.exists()
    until("its processes have gone", lambda: processes_of(made.place) == [])  # of a crash: killed, not yet ended


def test_output_and_status_come_back_as_they_are(machine):
    done = machine.run("printf 'one\\n\\ttwo'; printf 'th\\303\\251e' >&2; exit 42", "bare")
    assert done == (42, "one\n\ttwo", "th\u00e9e")
    assert machine.run("kill -KILL $$", "bare").status == 137
    assert machine.run("id -un; cat", "bare").out == "tester\n"  # nothing to read


def test_a_job_without_an_end_is_given_up_and_nothing_more_is_asked(machine):
    assert machine.run("true", "bare").status == 0
    with pytest.raises(RuntimeError, match="(?s)sleep infinity.*: it took more than 3 s"):
        machine.run("sleep infinity", "bare", timeout=3)
    with pytest.raises(RuntimeError, match="not tried, since it took more than 3 s"):
        machine.run("true", "bare")


def test_a_kernel_that_has_crashed_is_not_waited_for(machine):
    with pytest.raises(RuntimeError, match="its kernel crashed|it ended"):
        machine.run("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep infinity", "root")


def test_a_machine_dies_with_its_owner(machine_programs, tmp_path):
    """Killed, so that it could clean up nothing; its files are the next one's to remove."""
    script = ("import sys, time; sys.path[:0] = sys.argv[1:3]; import machine; from harness import needs; "
              "made = machine.Machine(machine.disk(needs.cache_dir()), sys.argv[3], init='plain'); print(made.place, flush=True); time.sleep(3600)")
    here = os.path.dirname(vm.__file__)
    owner = subprocess.Popen([sys.executable, "-c", script, here, os.path.dirname(here), str(machine_programs)],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    place = owner.stdout.readline().strip()
    assert place and processes_of(place)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    until("all of it has ended", lambda: not processes_of(place), 60)
    vm.boot(machine_programs, init="plain").close()
    assert not os.path.exists(place)
