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
        ["host:", "plugins:", "registries:", "store:", "version:"]


def test_registries_are_those_of_the_users_file(kelp, place):
    (place / "r.conf").write_text('unqualified-search-registries = ["quay.io"]\n[[registry]]\nlocation = "r.org"\ninsecure = true\n')
    env = {"CONTAINERS_REGISTRIES_CONF": str(place / "r.conf")}
    found = json.loads(kelp("info", "--format", "json", env=env).out)["registries"]
    assert found["search"] == ["quay.io"] and found["r.org"]["Insecure"] is True and found["r.org"]["Mirrors"] is None
    assert kelp("info", "--format", "{{.Registries.search}} {{.Registries.nothing}}", env=env).text == "[quay.io] <no value>"
    (place / "r.conf").write_text("nonsense = [")
    kelp.fails("info", env=env, says="r.conf")
