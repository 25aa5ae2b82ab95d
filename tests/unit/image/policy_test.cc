#include "image/policy.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp;
using namespace kelp::image;

namespace {

std::vector<std::string> resolved(const RegistryPolicy& policy, const char* text) {
  std::vector<std::string> names;
  for (const spec::ImageName& name : policy.resolve(text)) names.push_back(name.full());
  return names;
}

std::vector<std::string> places(const RegistryPolicy& policy, const char* text) {
  std::vector<std::string> names;
  for (const PullSource& source : policy.sources(spec::parse_image_name(text))) {
    names.push_back(source.name.full() + (source.insecure ? " insecure" : "") + (source.mirror ? " mirror" : ""));
  }
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("short names") {
  RegistryPolicy policy;
  CHECK(resolved(policy, "nginx") == Names{"docker.io/library/nginx:latest"});
  CHECK(resolved(policy, "me/app:2") == Names{"docker.io/me/app:2"});
  CHECK(resolved(policy, "quay.io/a/b") == Names{"quay.io/a/b:latest"});

  policy.add(R"(unqualified-search-registries = ["one.example", "two.example/team"]
                [aliases]
                "debian" = "docker.io/library/debian")",
             "r.conf");
  CHECK(resolved(policy, "nginx") == Names{"one.example/nginx:latest", "two.example/team/nginx:latest"});
  CHECK(resolved(policy, "debian:12") == Names{"docker.io/library/debian:12"});

  policy.add("short-name-mode = \"enforcing\"", "s.conf");
  CHECK(resolved(policy, "debian") == Names{"docker.io/library/debian:latest"});
  CHECK_THROWS_AS(static_cast<void>(policy.resolve("nginx")), UsageError);

  policy.add("short-name-mode = \"disabled\"\nunqualified-search-registries = []", "t.conf");
  CHECK_THROWS_AS(static_cast<void>(policy.resolve("debian")), UsageError);
}

TEST_CASE("registries: rewriting, mirrors, flags") {
  RegistryPolicy policy;
  policy.add(R"(
    [[registry]]
    location = "plain.example:5000"
    insecure = true
    [[registry]]
    prefix = "corp.example/images"
    location = "store.example/mirror/images"
    [[registry.mirror]]
    location = "near.example/m"
    insecure = true
    [[registry.mirror]]
    location = "digests.example"
    pull-from-mirror = "digest-only"
    [[registry]]
    prefix = "*.bad.example"
    blocked = true
    [[registry]]
    prefix = "corp.example"
    location = "other.example"
  )",
             "r.conf");
  CHECK(places(policy, "quay.io/a/b:1") == Names{"quay.io/a/b:1"});
  CHECK(places(policy, "plain.example:5000/x:1") == Names{"plain.example:5000/x:1 insecure"});
  CHECK(places(policy, "corp.example/images/app:3") ==
        Names{"near.example/m/app:3 insecure mirror", "store.example/mirror/images/app:3"});
  CHECK(places(policy, "corp.example/imagesx/app:3") == Names{"other.example/imagesx/app:3"});
  const std::string digest = "@sha256:" + std::string(64, 'a');
  CHECK(places(policy, ("corp.example/images/app" + digest).c_str()).size() == 3);
  CHECK_THROWS_WITH_AS(places(policy, "x.bad.example/app"), "registry *.bad.example is blocked in registries.conf",
                       Error);
  CHECK(places(policy, "bad.example/app:1") == Names{"bad.example/app:1"});
}

TEST_CASE("registries.conf, version 1 and mistakes") {
  RegistryPolicy policy;
  policy.add("[registries.search]\nregistries = ['a.example']\n[registries.insecure]\nregistries = ['b.example']\n",
             "old.conf");
  CHECK(resolved(policy, "x") == Names{"a.example/x:latest"});
  CHECK(places(policy, "b.example/x:1") == Names{"b.example/x:1 insecure"});

  CHECK_THROWS_WITH_AS(policy.add("\n[[registry]]\ninsecure = 1\nlocation = 'x'", "r.conf"),
                       "r.conf: line 3: insecure must be true or false", Error);
  CHECK_THROWS_AS(policy.add("[[registry]]\ninsecure = true", "r.conf"), Error);
  CHECK_THROWS_WITH_AS(policy.add("insecure=t\nlocation='x'", "r.conf"), doctest::Contains("saw 't\\"), Error);
  CHECK_THROWS_WITH_AS(policy.add("\n[=]", "r.conf"), doctest::Contains("r.conf: line 2: "), Error);
  CHECK_THROWS_AS(policy.add("registry = 1", "r.conf"), Error);
  CHECK_THROWS_AS(policy.add("unqualified-search-registries = [1]", "r.conf"), Error);
  CHECK_THROWS_AS(policy.add("short-name-mode = 'maybe'", "r.conf"), Error);
  CHECK_THROWS_AS(policy.add("a = [", "r.conf"), Error);
}

TEST_CASE("loopback hosts") {
  CHECK(is_loopback_host("127.0.0.1:5000"));
  CHECK(is_loopback_host("localhost"));
  CHECK(is_loopback_host("[::1]:5000"));
  CHECK_FALSE(is_loopback_host("docker.io"));
  CHECK_FALSE(is_loopback_host("localhost.example"));
}
