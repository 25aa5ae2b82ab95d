#include "monitor/plan.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp::monitor;

namespace {
Plan sample() {
  Plan plan;
  plan.id = "abc";
  plan.bundle = "/data/containers/abc";
  plan.run_dir = "/run/abc";
  plan.runtime = {"/usr/bin/kelp-oci", "--root", "/run/oci"};
  plan.forwards = {{"127.0.0.1:8080/tcp", "{\"execute\":\"add_hostfwd\"}"}};
  plan.log_max_size = 10 << 20;
  plan.tty = true;
  plan.restart = "on-failure";
  plan.restart_max = 3;
  plan.anonymous_volumes = {"v1", "v2"};
  return plan;
}
}  // namespace

TEST_CASE("a plan survives its text") {
  const Plan plan = sample();
  const std::string text = encode(plan);
  CHECK(text.substr(0, 10) == std::string("version=1\0", 10));
  const Plan back = decode(text);
  CHECK(encode(back) == text);
  CHECK(back.runtime == plan.runtime);
  CHECK(back.forwards == plan.forwards);
  CHECK(back.tty);
  CHECK(back.restart_max == 3);
}

TEST_CASE("a newer version, unknown keys and broken records are refused") {
  std::string text = encode(sample());
  text[8] = '2';
  CHECK_THROWS_WITH_AS(decode(text), doctest::Contains("newer"), kelp::Error);
  CHECK_THROWS_AS(decode(encode(sample()) + std::string("what=1\0", 7)), kelp::Error);
  CHECK_THROWS_AS(decode(encode(sample()) + "tail"), kelp::Error);
  CHECK_THROWS_AS(decode(std::string("id=1\0", 5)), kelp::Error);
  CHECK_THROWS_AS(decode(std::string("version=1\0id=x\0", 15)), kelp::Error);
  CHECK_THROWS_AS(decode(encode(sample()) + std::string("rows=x\0", 7)), kelp::Error);
}

TEST_CASE("a NUL in a value cannot forge a record") {
  Plan plan = sample();
  plan.name = std::string("a\0id=other", 10);
  CHECK_THROWS_AS(encode(plan), kelp::Error);
}

TEST_CASE("a change replaces restart policy and health check, and nothing else") {
  Plan plan = sample();
  plan.health.exec = {"exec", "--process", "/x", "abc"};
  Plan wanted;
  wanted.restart = "always";
  wanted.health.retries = 7;
  apply_change(plan, encode_change(wanted));
  CHECK(plan.restart == "always");
  CHECK(plan.restart_max == 0);
  CHECK(plan.health.exec.empty());
  CHECK(plan.health.retries == 7);
  CHECK(plan.id == "abc");
  CHECK_THROWS_AS(apply_change(plan, std::string("bundle=/other\0", 14)), kelp::Error);
  CHECK(plan.bundle == "/data/containers/abc");
}
