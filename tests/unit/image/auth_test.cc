#include "image/auth.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp;
using namespace kelp::image;

TEST_CASE("challenges of a WWW-Authenticate header") {
  SUBCASE("bearer with quoted parameters") {
    const auto challenges = parse_challenges(
        R"(Bearer realm="https://auth.example/token",service="reg, one",scope="repository:a/b:pull,push")");
    REQUIRE(challenges.size() == 1);
    CHECK(challenges[0].scheme == "bearer");
    CHECK(challenges[0].parameters.at("realm") == "https://auth.example/token");
    CHECK(challenges[0].parameters.at("service") == "reg, one");
    CHECK(challenges[0].parameters.at("scope") == "repository:a/b:pull,push");
  }
  SUBCASE("several, with escapes and names in any case") {
    const auto challenges = parse_challenges(R"(BASIC Realm="a \"b\"", bearer realm=x)");
    REQUIRE(challenges.size() == 2);
    CHECK(challenges[0].scheme == "basic");
    CHECK(challenges[0].parameters.at("realm") == "a \"b\"");
    CHECK(challenges[1].parameters.at("realm") == "x");
  }
  SUBCASE("malformed text does no harm") {
    CHECK(parse_challenges("").empty());
    CHECK(parse_challenges(" , ,").empty());
    CHECK(parse_challenges("=x").empty());
    CHECK(parse_challenges("Bearer realm=\"open").size() == 1);
    parse_challenges("\"\"\"==,,=\"");
  }
}

TEST_CASE("credentials in auth.json") {
  std::string helper;
  const auto look = [&](const char* json, const char* registry, const char* repository) {
    return credentials_in(json, "auth.json", registry, repository, helper);
  };
  SUBCASE("the most specific key wins") {
    const char* json = R"({"auths":{"quay.io":{"auth":"YTox"},"quay.io/team":{"auth":"Yjoy"},
                                    "quay.io/team/app":{"auth":"Yzoz"}}})";
    CHECK(look(json, "quay.io", "team/app")->user == "c");
    CHECK(look(json, "quay.io", "team/other")->user == "b");
    CHECK(look(json, "quay.io", "teamwork/app")->user == "a");
    CHECK(look(json, "quay.io", "team/app")->password == "3");
    CHECK_FALSE(look(json, "quay.io:443", "team/app"));
  }
  SUBCASE("keys as docker writes them") {
    const char* json = R"({"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},
                                    "https://reg.example:5000/v2/":{"username":"u","password":"p"}}})";
    const auto hub = look(json, "docker.io", "library/nginx");
    REQUIRE(hub);
    CHECK(hub->user == "user");
    CHECK(hub->password == "pa:ss");
    CHECK(look(json, "reg.example:5000", "x")->password == "p");
  }
  SUBCASE("helpers and identity tokens") {
    CHECK_FALSE(look(R"({"credHelpers":{"gcr.io":"gcloud"},"auths":{"gcr.io":{"auth":"YTox"}}})", "gcr.io", "x"));
    CHECK(helper == "gcloud");
    CHECK_FALSE(look(R"({"credsStore":"secretservice"})", "gcr.io", "x"));
    CHECK(helper == "secretservice");
    CHECK(look(R"({"auths":{"a.io":{"identitytoken":"t"}}})", "a.io", "x")->identity_token == "t");
  }
  SUBCASE("bad files are named") {
    CHECK_THROWS_WITH_AS(look("[]", "a.io", "x"), "auth.json: not a JSON object", Error);
    CHECK_THROWS_AS(look(R"({"auths":{"a.io":{"auth":"%"}}})", "a.io", "x"), Error);
    CHECK_FALSE(look(R"({"auths":{"a.io":{}}})", "a.io", "x"));
  }
}
