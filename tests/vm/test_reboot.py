"""The machine is switched off while containers run: an orderly one, and a power cut that loses what was not yet on disk."""

import conftest as vm
import pytest

STORE = "/home/tester/.local/share/kelp"
# The store on a file system with a journal, as laptops have it; what the power cut loses is then only what was not synced.
MOUNT = f"mkdir -p {STORE} && mount /dev/ubdb {STORE} && chown tester: /home/tester/.local /home/tester/.local/share {STORE}"
STATE = "kelp inspect -f '{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}' "


@pytest.fixture(scope="module")
def machine(machine_programs):
    with vm.boot(machine_programs, data_disk="512M") as made:
        assert made.run(MOUNT, "root").status == 0
        yield made


@pytest.fixture
def run(machine):
    yield vm.runner(machine)
    vm.clean(machine)
    machine.run("kelp rmi -f -a", "bare")


def test_after_a_reboot(machine, run):
    run("kelp load -q -i /opt/kelp/busybox.tar; kelp run -d --name ran --memory 64m --network none -v data:/data "
        "busybox sh -c 'echo said; date >>/data/starts; echo kept >/file; exec sleep 1000'; kelp create --name made busybox true")
    run("wait_for '[ \"$(kelp logs ran)\" = said ]'; kelp run -d --rm --name passing --network none busybox sleep 1000; kelp pause ran")
    machine.run("sync", "root")
    machine.reboot()
    run(MOUNT, "root")
    assert sorted(run("kelp ps -a --format '{{.Names}} {{.State}}'").out.splitlines()) == [
        "made created", "passing exited", "ran exited"]
    assert run("kelp ps -q").out == ""
    assert run(STATE + "ran").out.startswith("exited false ")
    assert "ran is exited" in run("kelp exec ran true", status=255).err
    assert run("kelp logs ran").out == "said\n"
    out = run("kelp start ran; wait_for '[ $(kelp logs ran | wc -l) = 2 ]'; kelp exec ran cat /file; kelp exec ran wc -l /data/starts; "
              "kelp logs ran | wc -l; "
              "cat /sys/fs/cgroup$(kelp inspect -f '{{.State.CgroupPath}}' ran)/memory.max; kelp start made").out.split()
    assert out == ["ran", "kept", "2", "/data/starts", "2", str(64 << 20), "made"]
    run("kelp rm -f -t 0 ran made passing; kelp volume rm data")


def test_after_a_power_cut_an_image_that_was_loaded_is_whole(machine, run):
    """Blobs are on disk before the image is known by name; layers that were not yet are unpacked again."""
    run("kelp load -q -i /opt/kelp/busybox.tar && kelp create --name old --network none busybox sleep 1000")
    machine.run("sync", "root")
    run("kelp rmi -f busybox; kelp load -q -i /opt/kelp/busybox.tar && kelp run -d --name c --network none busybox sleep 1000")
    want = run("kelp run --rm --network none busybox sh -c 'cat /etc/passwd | md5sum; md5sum </bin/busybox'").out
    machine.reboot()  # at once, without sync
    run(MOUNT, "root")
    assert set(run("kelp ps -a --format '{{.State}}'").out.split()) <= {"exited", "created"}
    assert run("kelp run --rm --network none busybox sh -c 'cat /etc/passwd | md5sum; md5sum </bin/busybox'").out == want
    run("kelp store verify && kelp run -d --name d --network none busybox sleep 1000 && kelp exec d true")


def test_a_layer_that_a_power_cut_has_damaged_is_unpacked_again(machine, run):
    """Unmarked and from another boot, it is compared with its manifest: what was torn is not run."""
    run("kelp load -q -i /opt/kelp/busybox.tar && kelp run --rm --network none busybox true; for i in $(seq 100); do "
        f"ls {STORE}/layers/*/*/synced >/dev/null 2>&1 && break; sleep 0.1; done; for layer in {STORE}/layers/*/*/; do "
        "rm $layer/synced; [ ! -e $layer/diff/etc/passwd ] || echo half a fi >$layer/diff/etc/passwd; done")
    machine.run("sync", "root")
    machine.reboot()
    run(MOUNT, "root")
    assert run("kelp run --rm --network none busybox head -n 1 /etc/passwd").out.startswith("root:")
    assert run(f"cat {STORE}/layers/*/*/layer.json | grep -c $(tr -d - </proc/sys/kernel/random/boot_id)").out >= "1"
