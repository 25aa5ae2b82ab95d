"""Hundreds of containers with limits, one after the other and many at once."""

COUNT, AT_ONCE = 300, 30


def test_many_containers_with_limits_leave_nothing(run):
    """Whatever is left is found by the fixture: groups, scopes, processes, state."""
    out = run(f"for i in $(seq {COUNT}); do kelp run --rm --network none --memory 64m --pids-limit 50 busybox true || echo failed $i; "
              f"done; for i in $(seq {AT_ONCE}); do kelp run -d --network none --name m$i --memory 64m --pids-limit 50 busybox "
              "sleep 1000 >/dev/null & done; wait; kelp ps -q | wc -l; kelp rm -f -t 0 -a | wc -l", timeout=1200).out.split()
    assert out == [str(AT_ONCE)] * 2
    assert run("systemctl --user list-units --all --plain --no-legend 'kelp-*' | wc -l").out == "0\n"
