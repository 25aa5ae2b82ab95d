#include "base/base64.h"

#include <doctest/doctest.h>

using namespace kelp;

TEST_CASE("base64") {
  CHECK(base64_encode("") == "");
  CHECK(base64_encode("f") == "Zg==");
  CHECK(base64_encode("fo") == "Zm8=");
  CHECK(base64_encode("foobar") == "Zm9vYmFy");
  CHECK(base64_encode("\xff\xfe\xfd") == "//79");
  CHECK(base64_decode("Zm8=") == "fo");
  CHECK(base64_decode("Zm8") == "fo");
  CHECK(base64_decode("//79") == "\xff\xfe\xfd");
  CHECK(base64_decode("") == "");
  CHECK_FALSE(base64_decode("Z"));
  CHECK_FALSE(base64_decode("Zm8*"));
}
