"""`kelp events`: one line per step, filters, formats, following, a bounded file."""

import json
import time

from harness.waiting import until

NONE = ("--network", "none")


def past(kelp, *more):
    return [json.loads(line) for line in kelp("events", "--stream=false", "--format", "json", *more).lines]


def steps(kelp, *more):
    return [event["Status"] for event in past(kelp, *more) if event["Type"] == "container"]


def test_the_life_of_a_container(kelp):
    container = kelp("run", "--name", "c", "--label", "tier=web", *NONE, "busybox", "sh", "-c", "exit 3", code=3).text
    assert container == ""
    assert steps(kelp) == ["create", "init", "start", "attach", "died", "cleanup"]
    died = past(kelp, "--filter", "event=died")
    assert len(died) == 1 and died[0]["ContainerExitCode"] == 3 and died[0]["Name"] == "c"
    assert died[0]["Image"] == "localhost/busybox:latest" and died[0]["Attributes"] == {"tier": "web"}
    kelp("rm", "c")
    assert steps(kelp)[-1] == "remove"


def test_a_container_that_goes_with_its_end(kelp):
    kelp("run", "--rm", *NONE, "busybox", "true")
    assert steps(kelp) == ["create", "init", "start", "attach", "died", "remove"]


def test_what_others_do_to_it(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    kelp("exec", "c", "sh", "-c", "exit 4", code=4)
    kelp("rename", "c", "d")
    kelp("kill", "--signal", "URG", "d")
    kelp("stop", "-t", "0", "d")
    assert steps(kelp) == ["create", "init", "start", "exec", "exec_died", "rename", "kill", "died", "cleanup", "stop"]
    assert past(kelp, "--filter", "event=exec_died")[0]["ContainerExitCode"] == 4
    assert past(kelp, "--filter", "event=kill")[0]["Attributes"]["signal"] == "23"
    assert {past(kelp, "--filter", f"event={step}")[0]["Name"] for step in ("rename", "died", "cleanup", "stop")} == {"d"}


def test_what_happens_to_images(kelp, place, registry):
    name = f"{registry.address}/events:1"
    kelp("tag", "busybox", name)
    kelp("push", "-q", "--tls-verify=false", name)
    kelp("save", "-q", "--format", "oci-archive", "-o", place / "a.tar", name)
    kelp("rmi", name)
    kelp("pull", "-q", "--tls-verify=false", name)
    kelp("load", "-q", "-i", place / "a.tar")
    whole = kelp("image", "inspect", "--format", "{{.Id}}", name).text
    kelp("untag", name)  # all its names
    found = [(event["Status"], event["Name"]) for event in past(kelp) if event["Type"] == "image"]
    assert found[1:] == [("tag", name), ("push", name), ("save", str(place / "a.tar")), ("untag", name), ("pull", name),
                         ("loadfromarchive", name), ("untag", "localhost/busybox:latest"), ("untag", name)]
    assert {event["ID"] for event in past(kelp, "--filter", "type=image")} == {whole}
    kelp("rmi", whole)
    assert past(kelp, "--filter", "event=remove", "--filter", "type=image")[-1]["ID"] == whole


def test_filters(kelp):
    for name in ("one", "two"):
        kelp("run", "--rm", "--name", name, "--label", f"who={name}", *NONE, "busybox", "true")
    kelp("volume", "create", "v")
    names = lambda *filters: {event["Name"] for event in past(kelp, *(w for f in filters for w in ("--filter", f)))}
    assert names("container=one") == {"one"}
    assert names("container=one", "container=two") == {"one", "two"}
    assert names("label=who=two") == {"two"} and names("label=who") == {"one", "two"}
    assert names("type=volume") == {"v"} == names("volume=v")
    assert names("image=busybox", "event=create") == {"one", "two"}
    assert names("event=die") == {"one", "two"} and names("event=die", "container=one") == {"one"}
    kelp.fails("events", "--filter", "colour=red", says="unknown key")
    kelp.fails("events", "--filter", "red", says="key=value")


def test_times(kelp):
    kelp("volume", "create", "before")
    time.sleep(1.1)
    middle = time.time()
    kelp("volume", "create", "after")
    names = lambda *more: [event["Name"] for event in past(kelp, "--filter", "type=volume", *more)]
    assert names("--since", f"{middle:.3f}") == ["after"]
    assert names("--since", "1h") == ["before", "after"]
    assert names("--until", f"{middle:.3f}") == ["before"]
    # A time to come: it waits until then, and ends by itself.
    assert names("--since", "1h", "--until", "1s") == ["before", "after"]


def test_following(kelp):
    follower = kelp.start("events", "--format", "{{.Type}} {{.Status}} {{.Name}}")
    until("the follower waits", lambda: "S" in open(f"/proc/{follower.pid}/stat").read().split(")")[1][:3])
    time.sleep(0.3)
    kelp("volume", "create", "v")
    assert follower.stdout.readline() == b"volume create v\n"
    kelp("run", "--rm", "--name", "c", *NONE, "busybox", "true")
    assert [follower.stdout.readline() for _ in range(6)][-1] == b"container remove c\n"


def test_words_for_people(kelp):
    kelp("run", "--name", "c", "--label", "a=b", *NONE, "busybox", "true")
    line = kelp("events", "--stream=false", "--filter", "event=died").text
    assert line.endswith("(image=localhost/busybox:latest, name=c, exitCode=0, a=b)") and " container died " in line
    kelp.fails("events", "--format", "{{.Nothing}}", "--stream=false", says="Nothing")


def test_the_file_is_bounded_and_nothing_recent_is_lost(kelp):
    log = kelp.store / "events.log"
    kelp("volume", "create", "seed")
    line = [l for l in log.read_text().splitlines() if '"seed"' in l][0] + "\n"
    log.write_text(line * (1100 * 1024 // len(line)))
    kelp("volume", "create", "last")  # finds it full
    kelp("volume", "create", "next")
    assert log.stat().st_size < 4096 and (kelp.store / "events.log.1").stat().st_size > 1 << 20
    assert [event["Name"] for event in past(kelp, "--filter", "type=volume")][-2:] == ["last", "next"]


def test_a_damaged_line_is_skipped(kelp):
    kelp("volume", "create", "v")
    with (kelp.store / "events.log").open("a") as log:
        log.write('{"time":12,"Sta')
    kelp("volume", "create", "glued")
    kelp("volume", "create", "w")
    assert [event["Name"] for event in past(kelp, "--filter", "type=volume")] == ["v", "w"]
