#include "engine/logs.h"

#include <doctest/doctest.h>

#include "engine/journal.h"

using kelp::engine::journal_fields;
using kelp::engine::parse_journal_line;
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

TEST_CASE("entries of the journal") {
  const auto text =
      parse_journal_line(R"({"__REALTIME_TIMESTAMP":"1764028800123456","PRIORITY":"3","MESSAGE":"oops"})");
  REQUIRE(text);
  CHECK(text->text == "oops");
  CHECK(text->is_stderr);
  CHECK(!text->partial);
  CHECK(text->time.time_since_epoch() == std::chrono::microseconds(1764028800123456));
  const auto bytes = parse_journal_line(
      R"({"__REALTIME_TIMESTAMP":"1","PRIORITY":"6","MESSAGE":[97,0,255],"CONTAINER_PARTIAL_MESSAGE":"true"})");
  REQUIRE(bytes);
  CHECK(bytes->text == std::string("a\0\xff", 3));
  CHECK(bytes->partial);
  CHECK(!parse_journal_line("{"));
  CHECK(!parse_journal_line(R"({"MESSAGE":"no time"})"));
  CHECK(!parse_journal_line(R"({"__REALTIME_TIMESTAMP":"1","MESSAGE":null})"));
}

TEST_CASE("fields of the journal are lines of their own") {
  kelp::store::ContainerRecord record;
  record.id = std::string(64, 'a');
  record.name = "web";
  record.image_name = "docker.io/library/x:1";
  record.config.log_options["tag"] = "two\nlines";
  const std::string fields = journal_fields(record);
  CHECK(fields.find("CONTAINER_NAME=web\n") != std::string::npos);
  CHECK(fields.find("CONTAINER_ID=aaaaaaaaaaaa\n") != std::string::npos);
  CHECK(fields.find("CONTAINER_TAG=twolines\n") != std::string::npos);
}
