#include "base/pattern.h"

#include <doctest/doctest.h>

#include "base/error.h"

using kelp::Pattern;

TEST_CASE("a pattern fits any part of a text, and what it says of its ends holds") {
  CHECK(Pattern("eb").found_in("web"));
  CHECK_FALSE(Pattern("^eb").found_in("web"));
  CHECK(Pattern("^(a|b)[0-9]+$").found_in("b17"));
  CHECK_FALSE(Pattern("^(a|b)[0-9]+$").found_in("b17x"));
  CHECK(Pattern("w.b").found_in("web"));
  CHECK_FALSE(Pattern("w\\.b").found_in("web"));
  CHECK(Pattern("").found_in("anything"));
}

TEST_CASE("classes as Go spells them") {
  CHECK(Pattern("^a\\d+$").found_in("a12"));
  CHECK_FALSE(Pattern("^a\\d+$").found_in("add"));
  CHECK(Pattern("^a[x\\d]$").found_in("a1"));
  CHECK(Pattern("^a[]\\d]$").found_in("a1"));
  CHECK_FALSE(Pattern("^a\\D$").found_in("a1"));
  CHECK(Pattern("^\\w\\S$").found_in("ab"));
  CHECK(Pattern("^a\\\\d$").found_in("a\\d"));
}

TEST_CASE("groups and flags as Go spells them") {
  CHECK(Pattern("^web(?:1|2)$").found_in("web2"));
  CHECK_FALSE(Pattern("^web(?:1|2)$").found_in("web3"));
  CHECK(Pattern("(?i)WEB").found_in("web"));
  CHECK_FALSE(Pattern("WEB").found_in("web"));
}

TEST_CASE("what is no pattern is refused") {
  for (const char* text : {"(", "[", "a{2", "*)"}) CHECK_THROWS_AS(Pattern{text}, kelp::Error);
}
