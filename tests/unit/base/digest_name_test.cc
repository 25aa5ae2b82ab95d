#include "base/digest_name.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp;

TEST_CASE("only whole, lower-case digests of known algorithms are digests") {
  const std::string hex(64, 'a');
  const auto digest = DigestName::parse("sha256:" + hex);
  REQUIRE(digest);
  CHECK(digest->hex() == hex);
  CHECK(digest->short_hex() == "aaaaaaaaaaaa");
  for (const std::string& bad : {std::string(), "sha256:" + std::string(63, 'a'), "sha256:" + std::string(64, 'A'),
                                 "md5:" + hex, hex, "sha256:../" + std::string(61, 'a')})
    CHECK_FALSE(DigestName::parse(bad));
  CHECK_THROWS_AS(DigestName::require("x"), Error);
}
