"""kelp run --trace: what a start is made of."""

import json
import re

import pytest

from harness.waiting import until

NONE = ("--network", "none")
STEPS = ["parse the bundle", "create the namespaces", "set up the cgroup", "mount the root filesystem",
         "pivot_root into it", "drop privileges, seccomp", "exec the command"]


def trace_of(done):
    [line] = [line for line in done.err.splitlines() if line.startswith("{")]
    return json.loads(line)


def test_the_seven_steps_as_json(kelp):
    done = kelp("run", "--rm", *NONE, "--trace=json", "busybox", "echo", "hello")
    assert done.text == "hello"
    trace = trace_of(done)
    assert [step["name"] for step in trace["steps"]] == STEPS
    assert [step["step"] for step in trace["steps"]] == [1, 2, 3, 4, 5, 6, 7]
    for step in trace["steps"]:
        assert step["parts"], step
        for part in step["parts"]:
            assert part["program"] in ("kelp", "kelp-oci") and 0 <= part["at_us"] <= trace["total_us"]
            # The end of exec is seen: it is no longer open when the container is said to run.
            assert 0 <= part["took_us"] <= trace["total_us"], part
        assert step["at_us"] == step["parts"][0]["at_us"] and step["took_us"] <= trace["total_us"]
    # In this order they begin, each by its part in kelp-oci. The overlay of the fourth lies beside.
    begins = [next(part["at_us"] for part in step["parts"] if part["program"] == "kelp-oci") for step in trace["steps"]
              if step["step"] != 3]
    assert begins == sorted(begins)
    others = {part["name"] for part in trace["others"]}
    assert {"find the image", "prepare the start", "start the session"} <= others


def test_a_table_for_people(kelp):
    done = kelp("run", "-d", "--name", "t", *NONE, "--trace", "busybox", "sleep", "100")
    assert re.fullmatch(r"[0-9a-f]{64}", done.text)
    for number, name in enumerate(STEPS, 1):
        assert re.search(rf"^ +\d+ +\d+  {number} {re.escape(name)}$", done.err, re.M), done.err
    assert re.search(r"^ +\d+ +\d+     kelp-oci: pivot into the root filesystem$", done.err, re.M)
    assert re.search(r"^ +\d+  in all$", done.err, re.M)
    # Nothing of it is left: the file was only the way.
    assert (kelp.run_dir / done.text / "state.json").exists() and not (kelp.run_dir / done.text / "trace").exists()
    kelp("rm", "-f", "-t", "0", "t")


def test_no_word_without_it(kelp):
    assert kelp("run", "--rm", *NONE, "busybox", "true").err == ""


@pytest.mark.parametrize("words, code, failed", [
    (("busybox", "/nothing/here"), 127, None),
    (("--pull=never", "nowhere.invalid/none", "true"), 125, "find the image"),
])
def test_a_failed_start_tells_how_far_it_came(kelp, words, code, failed):
    done = kelp("run", "--rm", *NONE, "--trace=json", *words, code=code)
    trace = trace_of(done)
    if failed:
        assert [part["name"] for part in trace["others"] if part.get("failed")] == [failed]
        assert all(step["parts"] == [] for step in trace["steps"] if step["step"] != 3)
    else:
        assert trace["steps"][4]["parts"] and trace["steps"][6]["parts"] == []
    assert done.err.splitlines()[1].startswith("kelp: ")


def test_a_filter_that_allows_next_to_nothing(kelp, place):
    """Between the loading of the filter and exec nothing is asked of the kernel for the trace's sake."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW",
               "syscalls": [{"names": ["getpid", "gettid", "pwrite64", "ftruncate", "mmap2"],
                             "action": "SCMP_ACT_KILL_PROCESS"}]}
    (place / "tight.json").write_text(json.dumps(profile))
    done = kelp("run", "--rm", *NONE, "--trace=json", "--security-opt", f"seccomp={place / 'tight.json'}", "busybox",
                "echo", "hello")
    assert done.text == "hello" and trace_of(done)["steps"][5]["parts"]


def test_a_restart_does_without(kelp):
    kelp("run", "-d", "--name", "again", "--restart", "on-failure:1", *NONE, "--trace", "busybox", "false")
    events = ("events", "--stream=false", "--filter", "container=again", "--format", "{{.Status}}")
    until("it was started twice and has ended", lambda: kelp(*events).lines.count("died") == 2)
    assert kelp(*events).lines.count("start") == 2


def test_bad_word(kelp):
    kelp.fails("run", "--trace=xml", *NONE, "busybox", "true", says="text, json")
