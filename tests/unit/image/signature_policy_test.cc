#include "image/signature_policy.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp;
using image::SignaturePolicy;

namespace {

std::string verdict(const SignaturePolicy& policy, const char* name) {
  try {
    policy.check(spec::parse_image_name(name));
    return "accepted";
  } catch (const Error& error) {
    return error.message();
  }
}

}  // namespace

TEST_CASE("the most specific scope of policy.json decides") {
  const auto policy = SignaturePolicy::parse(R"({"default": [{"type": "reject"}], "transports": {
    "docker": {"a.example": [{"type": "insecureAcceptAnything"}], "a.example/closed": [{"type": "reject"}],
               "a.example/closed/one:1": [{"type": "insecureAcceptAnything"}], "*.wild.example": [{"type": "insecureAcceptAnything"}],
               "b.example": [{"type": "insecureAcceptAnything"}, {"type": "signedBy"}]},
    "dir": {"/srv": [{"type": "insecureAcceptAnything"}]}}})",
                                             "policy.json");
  CHECK(verdict(policy, "a.example/x") == "accepted");
  CHECK(verdict(policy, "a.example/closed/two:1") ==
        "a.example/closed/two:1: rejected by policy.json (docker a.example/closed)");
  CHECK(verdict(policy, "a.example/closed/one:1") == "accepted");
  CHECK(verdict(policy, "deep.wild.example:5000/x:1") == "accepted");
  CHECK(verdict(policy, "c.example/x:1") == "c.example/x:1: rejected by policy.json (default)");
  CHECK(verdict(policy, "b.example/x:1").find("wants a signature (signedBy), which kelp cannot check") !=
        std::string::npos);
  CHECK_NOTHROW(policy.check("dir", "/srv/images/one"));
  CHECK_THROWS_AS(policy.check("dir", "/srvimages"), Error);
  CHECK_THROWS_AS(policy.check("oci", "/srv"), Error);
}

TEST_CASE("a scope of policy.json may be a digest") {
  const std::string digest = "sha256:" + std::string(64, 'a'), other = "sha256:" + std::string(64, 'b');
  const std::string accept = R"([{"type": "insecureAcceptAnything"}])";
  const auto policy = SignaturePolicy::parse(
      R"({"default": [{"type": "reject"}], "transports": {"docker": {"a.example/x@)" + digest + "\": " + accept +
          R"(, "a.example/y:latest": )" + accept + R"(}, "containers-storage": {"[overlay@/s]a.example/x@)" + digest +
          "\": " + accept + "}}}",
      "policy.json");
  CHECK(verdict(policy, ("a.example/x@" + digest).c_str()) == "accepted");
  CHECK(verdict(policy, ("a.example/x:1@" + digest).c_str()) == "accepted");
  CHECK(verdict(policy, ("a.example/x@" + other).c_str()) != "accepted");
  CHECK(verdict(policy, "a.example/x:1") != "accepted");
  CHECK(verdict(policy, "a.example/y") == "accepted");
  CHECK_NOTHROW(policy.check_stored("overlay", "/s", "a.example/x@" + digest));
  CHECK_THROWS_AS(policy.check_stored("overlay", "/s", "a.example/x@" + other), Error);
}

TEST_CASE("a policy.json that makes no sense is refused, not passed over") {
  for (const char* text : {"[]", "{", "{}", R"({"default": []})", R"({"default": [{"type": "else"}]})",
                           R"({"default": [{"type": "reject"}], "transports": {"docker": []}})"}) {
    CHECK_THROWS_AS(SignaturePolicy::parse(text, "policy.json"), Error);
  }
}
