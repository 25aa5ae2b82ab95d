#include "spec/image_name.h"

#include <doctest/doctest.h>

#include "base/error.h"

using kelp::UsageError;
using namespace kelp::spec;

TEST_CASE("image names are normalised as docker and podman do") {
  CHECK(parse_image_name("nginx").full() == "docker.io/library/nginx");
  CHECK(parse_image_name("nginx").tagged().full() == "docker.io/library/nginx:latest");
  CHECK(parse_image_name("me/app:1.0").full() == "docker.io/me/app:1.0");
  CHECK(parse_image_name("index.docker.io/nginx:a").full() == "docker.io/library/nginx:a");
  CHECK(parse_image_name("docker://quay.io/a/b").full() == "quay.io/a/b");
  CHECK(parse_image_name("localhost/foo").full() == "localhost/foo");
  CHECK(parse_image_name("localhost:5000/foo:x").registry == "localhost:5000");
  CHECK(parse_image_name("[::1]:5000/foo").registry == "[::1]:5000");
  CHECK(parse_image_name("a.b/c/d/e:T_1.2-3").full() == "a.b/c/d/e:T_1.2-3");
  CHECK(parse_image_name("foo__bar/b---c.d").repository == "foo__bar/b---c.d");
}

TEST_CASE("digests go with and without a tag") {
  const std::string digest = "sha256:" + std::string(64, 'a');
  const ImageName name = parse_image_name("nginx:1@" + digest);
  CHECK(name.tag == "1");
  CHECK(name.digest == digest);
  CHECK(parse_image_name("nginx@" + digest).tagged().full() == "docker.io/library/nginx@" + digest);
}

TEST_CASE("bad names are refused") {
  for (const char* text :
       {"",          ":",    "a:",          "A",      "Nginx", "a//b",      "/a",           "a/",
        "-a",        "a-",   "a..b",        "a___b",  "a b",   "host:0x/a", "host:99999/a", "a@sha256:12",
        "a:tag:tag", "a:.x", "a.b:70000/c", "[::1/a", "a\n",   "a/../b"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_image_name(text), UsageError);
  }
  CHECK_THROWS_AS(parse_image_name(std::string(64, 'a')), UsageError);
  CHECK_THROWS_AS(parse_image_name("a:" + std::string(129, 't')), UsageError);
}

TEST_CASE("short names") {
  CHECK(is_short_name("nginx:1"));
  CHECK(is_short_name("me/app"));
  CHECK_FALSE(is_short_name("localhost/a"));
  CHECK_FALSE(is_short_name("quay.io/a"));
  CHECK_FALSE(is_short_name("docker://a"));
  const auto candidates = local_candidates("hello");
  REQUIRE(candidates.size() == 2);
  CHECK(candidates[0].full() == "localhost/hello:latest");
  CHECK(candidates[1].full() == "docker.io/library/hello:latest");
  CHECK(local_candidates("quay.io/a").size() == 1);
  CHECK(local_candidates("NO").empty());
}

TEST_CASE("familiar spelling") {
  CHECK(familiar(parse_image_name("docker.io/library/nginx:latest")) == "nginx:latest");
  CHECK(familiar(parse_image_name("me/app")) == "me/app");
  CHECK(familiar(parse_image_name("quay.io/a/b:c")) == "quay.io/a/b:c");
  CHECK(familiar(parse_local_name("x:1")) == "localhost/x:1");
  CHECK(familiar(parse_image_name("docker.io/my.team/app")) == "docker.io/my.team/app");
  CHECK(familiar(parse_image_name("docker.io/localhost/app")) == "docker.io/localhost/app");
}
