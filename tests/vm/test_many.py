"""Hundreds of containers with limits, one after the other and many at once."""

COUNT, LANES, AT_ONCE = 300, 3, 30
LIMITS = "--network none --memory 64m --pids-limit 50"


def test_many_containers_with_limits_leave_nothing(run):
    """Whatever is left is found by the fixture: groups, scopes, processes, state. Lanes, since a start also waits for others;
    one that runs all the time keeps the user namespace, which is not what is asked about here."""
    run(f"kelp run -d --name stays {LIMITS} busybox sleep 100000")
    out = run(f"lane() {{ for i in $(seq {COUNT // LANES}); do kelp run --rm {LIMITS} busybox true && echo ran; done; }}; "
              f"for n in $(seq {LANES}); do lane & done; wait", timeout=1800).out
    assert out == "ran\n" * COUNT
    out = run(f"for i in $(seq {AT_ONCE}); do kelp run -d --name m$i {LIMITS} busybox sleep 1000 >/dev/null & done; wait; "
              "kelp ps -q | wc -l; kelp rm -f -t 0 -a | wc -l").out.split()
    assert out == [str(AT_ONCE + 1)] * 2
    run("wait_for '[ -z \"$(systemctl --user list-units --all --plain --no-legend \"kelp-*\")\" ]'")
