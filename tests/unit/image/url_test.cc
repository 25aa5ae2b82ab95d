#include "image/url.h"

#include <doctest/doctest.h>

#include "image/registry.h"

using namespace kelp::image;

TEST_CASE("origins of URLs") {
  CHECK(url_origin("https://Reg.Example/v2/x?y=z") == "https://reg.example");
  CHECK(url_origin("https://reg.example:443") == "https://reg.example");
  CHECK(url_origin("http://reg.example:80/a") == "http://reg.example");
  CHECK(url_origin("http://reg.example:443/a") == "http://reg.example:443");
  CHECK(url_origin("https://user:pw@reg.example/a") == "https://reg.example");
  CHECK(url_origin("https://reg.example?x=@evil") == "https://reg.example");
  CHECK(url_origin("/v2/") == "");
  CHECK(url_origin("https://reg.example\n.evil/v2") == "");
  CHECK(url_origin("https://reg.example evil/v2") == "");
  CHECK(url_origin("ht\"@x://reg.example/v2") == "");
}

TEST_CASE("redirect targets") {
  const char* base = "https://a.example:5000/v2/x/blobs/y?q=1";
  CHECK(resolve_url(base, "http://b.example/z") == "http://b.example/z");
  CHECK(resolve_url(base, "//b.example/z") == "https://b.example/z");
  CHECK(resolve_url(base, "/z?u=http://c") == "https://a.example:5000/z?u=http://c");
  CHECK(resolve_url(base, "z") == "https://a.example:5000/v2/x/blobs/z");
  CHECK(resolve_url(base, "?q=2") == "https://a.example:5000/v2/x/blobs/y?q=2");
  CHECK(resolve_url("https://a.example", "z") == "https://a.example/z");
}

TEST_CASE("a URL with a user") {
  const UrlWithUser plain = split_user("http://h.example:80/a/b.tar?c=d@e#f");
  CHECK(plain.url == "http://h.example:80/a/b.tar?c=d@e");
  CHECK(plain.user == "");
  CHECK(plain.shown == "http://h.example:80/a/b.tar");
  const UrlWithUser full = split_user("https://a%40b:p%3Aw%@h.example/x?key=hush");
  CHECK(full.url == "https://h.example/x?key=hush");
  CHECK(full.user == "a@b:p:w%");
  CHECK(full.shown == "https://h.example/x");
  CHECK(split_user("http://u@h.example?q=@").url == "http://h.example?q=@");
}

TEST_CASE("query values") {
  CHECK(url_encode("repository:a/b:pull,push") == "repository%3Aa%2Fb%3Apull%2Cpush");
  CHECK(url_encode("a-b_c.d~E9") == "a-b_c.d~E9");
}

TEST_CASE("error texts of registries are made fit to print") {
  CHECK(registry_error_text(R"({"errors":[{"code":"DENIED","message":"no way"}]})") == "no way");
  CHECK(registry_error_text(R"({"errors":[{"code":"DENIED"}]})") == "denied");
  CHECK(registry_error_text("<html>") == "");
  CHECK(registry_error_text(R"({"errors":[]})") == "");
  CHECK(registry_error_text(R"({"errors":[{"message":"a\u001b[31mb"}]})").find('\x1b') == std::string::npos);
}
