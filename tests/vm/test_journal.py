"""--log-driver journald, with systemd's own journal."""

import pytest

RUN = "kelp run --log-driver journald --network none"


@pytest.fixture
def journal(run):
    """Kept on disk: only then does the journal of an ordinary user exist. The directory belongs to whom systemd-tmpfiles would
    give it, else the group of those who may read the journal may not."""
    run("install -d -g systemd-journal -m 2755 /var/log/journal && mkdir -p /run/systemd/journald.conf.d && "
        "printf '[Journal]\\nStorage=persistent\\n' >/run/systemd/journald.conf.d/test.conf && "
        "systemctl restart systemd-journald && journalctl --flush && ls /var/log/journal/*/system.journal", "root")


def test_output_goes_to_the_journal_and_comes_back(run, journal):
    # Which of two streams comes first is nobody's to say, so the last word waits until the others have been read.
    run(f"{RUN} -d --name j --log-opt tag=mine busybox sh -c 'echo one; echo two >&2; until [ -e /go ]; do sleep 0.1; done; "
        "printf three'; wait_for 'kelp logs j 2>&1 | grep two'; kelp exec j touch /go; kelp wait j")
    # journald takes its time; the messages are there when all thirteen bytes are.
    done = run("wait_for '[ $(kelp logs j 2>&1 | wc -c) -ge 13 ]'; kelp logs j")
    assert (done.out, done.err) == ("one\nthree", "two\n")
    assert run("kelp logs --tail 1 j 2>/dev/null").out == "three"
    assert run("kelp logs --since 1h j 2>/dev/null").out == "one\nthree"
    assert sorted(run("journalctl -q -o cat CONTAINER_TAG=mine", "root").out.split()) == ["one", "three", "two"]
    assert run("journalctl -q -o cat -p err CONTAINER_NAME=j", "root").out.split() == ["two"]
    inspected = run("kelp inspect -f '{{.HostConfig.LogConfig.Type}},{{.HostConfig.LogConfig.Path}}' j").out.strip()
    assert inspected == "journald,"


def test_following_ends_with_the_container(run, journal):
    run(f"{RUN} -d --name f busybox sh -c 'echo early; sleep 2; echo late'")
    assert run("kelp logs -f f").out == "early\nlate\n"
