#include "base/text.h"

#include <doctest/doctest.h>

using namespace kelp;

TEST_CASE("split keeps empty parts and honours the limit") {
  CHECK(split("a,,b", ',') == std::vector<std::string>{"a", "", "b"});
  CHECK(split("", ',').empty());
  CHECK(split("k=v=w", '=', 2) == std::vector<std::string>{"k", "v=w"});
  CHECK(split("a:", ':') == std::vector<std::string>{"a", ""});
}

TEST_CASE("integers are taken whole and within range") {
  CHECK(to_int("42") == 42);
  CHECK(to_int("-1") == -1);
  CHECK_FALSE(to_int("42 "));
  CHECK_FALSE(to_int("+1"));
  CHECK_FALSE(to_int(""));
  CHECK_FALSE(to_int("70000", 0, 65535));
  CHECK_FALSE(to_int("99999999999999999999"));
  CHECK(to_octal("0755") == 0755U);
  CHECK_FALSE(to_octal("0788"));
  CHECK_FALSE(to_octal("17777"));
}

TEST_CASE("messages show hostile text harmlessly") {
  CHECK(printable("a\x1b[31m\n") == "a\\x1b[31m\\n");
  CHECK(printable("caf\xc3\xa9") == "caf\xc3\xa9");
  CHECK(printable("\xff\xc0\xaf") == "\\xff\\xc0\\xaf");
  CHECK(quoted(std::string(300, 'x')).size() < 220);
}

TEST_CASE("UTF-8 sequences: no overlong form, no surrogate, nothing above U+10FFFF") {
  CHECK(utf8_sequence_length("\xc3\xa9") == 2);
  CHECK(utf8_sequence_length("\xe0\x80\x80") == 0);
  CHECK(utf8_sequence_length("\xed\xa0\x80") == 0);
  CHECK(utf8_sequence_length("\xf4\x90\x80\x80") == 0);
  CHECK(utf8_sequence_length("\xf0\x9f\x98\x80") == 4);
}

TEST_CASE("nearest suggests only what is near") {
  CHECK(nearest("imagse", {"images", "inspect", "info"}) == "images");
  CHECK(nearest("rnu", {"images", "run", "rm"}) == "run");  // two letters swapped
  CHECK(nearest("zzzzzz", {"images", "inspect", "info"}).empty());
}
