"""kelp info: at which level kelp works here, and why."""

import json

from harness import needs


def test_levels_come_with_their_reasons(kelp):
    levels = json.loads(kelp("info", "--format", "json").out)["host"]["levels"]
    assert levels["storage"]["driver"] in ("overlay", "fuse-overlayfs", "copy") and levels["storage"]["reason"]
    assert levels["userNamespace"]["level"] == ("full" if needs.probe("subids")[0] else "single-id")
    assert levels["cgroups"]["limits"] or (levels["cgroups"]["reason"] and levels["cgroups"]["hint"])


def test_names_of_fields_are_podmans(kelp):
    template = "{{.Host.OS}} {{.Store.GraphDriverName}} {{.Host.Security.Rootless}} {{.Host.OCIRuntime.Name}}"
    assert kelp("info", "--format", template).text == "linux overlay true kelp-oci"


def test_as_text_it_is_yaml(kelp):
    lines = kelp("info").lines
    assert [line for line in lines if line and not line.startswith((" ", "-"))] == \
        ["host:", "plugins:", "store:", "version:"]
