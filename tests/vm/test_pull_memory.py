"""A pull takes less than 64 MB whatever the layer: the kernel holds it to that, page cache and all, without swap."""

import lzma
import re

import pytest

from harness import far_references, images
from harness.images import Image, LayerTar

BLOCKS, LAYERS = 2, 2


def pack_far(plain):
    return far_references.pack(plain, BLOCKS)


def pack_wide_xz(plain):
    return lzma.compress(plain, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 << 20}])


@pytest.mark.parametrize("pack", [pack_far, pack_wide_xz])
def test_a_pull_takes_less_than_64_mb(rig, run, place, pack):
    if "memory" not in rig.run("cat /sys/fs/cgroup/cgroup.controllers", "root").out.split():
        pytest.skip("the machine's kernel does not limit memory")
    zeros = bytes(far_references.plain_size(BLOCKS))
    image = Image([LayerTar().file(f"{n}", zeros) for n in range(LAYERS)], compression="zstd", pack=pack)
    image.write_archive(rig.share / "wide.tar", "localhost/wide:1")
    limited = "systemd-run --user --pipe --wait -q -p MemoryMax=64M -p MemorySwapMax=0 --setenv=PATH=$PATH "
    try:
        killed = run(limited + "python3 -c 'b\"x\" * (80 << 20)'", status=None)
        assert killed.status != 0, "the kernel does not hold a program to the limit"
        out = run(limited + "sh -c 'kelp pull -q oci-archive:/rig/wide.tar:localhost/wide:1; "
                  "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.peak || :'").out
        assert re.match(r"[0-9a-f]{64}\n", out)
        sizes = run("kelp run --rm --network none --name c -v /opt/kelp/busybox:/busybox:ro localhost/wide:1 /busybox stat -c %s "
                    + " ".join(f"/{n}" for n in range(LAYERS))).out.split()
        assert sizes == [str(len(zeros))] * LAYERS
    finally:
        run("kelp rmi -f --ignore localhost/wide:1; kelp store gc", status=None)
        (rig.share / "wide.tar").unlink()
