#include "engine/logs.h"

#include <doctest/doctest.h>

using kelp::engine::parse_json_line;
using kelp::engine::parse_k8s_line;

TEST_CASE("lines of k8s-file") {
  auto entry = parse_k8s_line("2026-11-23T17:18:00.123456789+01:00 stdout F hello world");
  REQUIRE(entry);
  CHECK(entry->text == "hello world");
  CHECK_FALSE(entry->is_stderr);
  CHECK_FALSE(entry->partial);
  entry = parse_k8s_line("2026-11-23T17:18:00Z stderr P ");
  REQUIRE(entry);
  CHECK(entry->is_stderr);
  CHECK(entry->partial);
  CHECK(entry->text.empty());
  entry = parse_k8s_line("2026-11-23T17:18:00Z stdout F");
  REQUIRE(entry);
  CHECK(entry->text.empty());
  CHECK_FALSE(parse_k8s_line("torn li"));
  CHECK_FALSE(parse_k8s_line("2026-11-23T17:18:00Z stdin F x"));
  CHECK_FALSE(parse_k8s_line("yesterday stdout F x"));
}

TEST_CASE("lines of json-file") {
  auto entry = parse_json_line(R"({"log":"hello\n","stream":"stderr","time":"2026-11-23T17:18:00.5Z"})");
  REQUIRE(entry);
  CHECK(entry->text == "hello");
  CHECK(entry->is_stderr);
  CHECK_FALSE(entry->partial);
  entry = parse_json_line(R"({"log":"part","stream":"stdout","time":"2026-11-23T17:18:00Z"})");
  REQUIRE(entry);
  CHECK(entry->partial);
  CHECK_FALSE(parse_json_line(R"({"log":"torn)"));
  CHECK_FALSE(parse_json_line("[]"));
}
