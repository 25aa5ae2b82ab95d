#include "spec/image_docs.h"

#include <doctest/doctest.h>

#include <string>

#include "base/error.h"

using kelp::Error;
using namespace kelp::spec;

namespace {

const std::string kDigest = "sha256:" + std::string(64, 'b');

std::string message_of(auto&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

std::string descriptor(const std::string& type) {
  return R"({"mediaType":")" + type + R"(","digest":")" + kDigest + R"(","size":7})";
}

}  // namespace

TEST_CASE("a manifest survives parse and print") {
  const std::string text = R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":)" +
                           descriptor(media::kConfig) + R"(,"layers":[)" + descriptor(media::kLayerZstd) +
                           R"(],"annotations":{"a":"b"}})";
  const ImageManifest manifest = parse_manifest(text, "m");
  REQUIRE(manifest.layers.size() == 1);
  CHECK(manifest.layers[0].size == 7);
  CHECK(print_manifest(manifest) == text);
  CHECK_FALSE(is_index_document(text, "", "m"));
}

TEST_CASE("an index survives parse and print") {
  const std::string text =
      R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"x","digest":")" +
      kDigest + R"(","size":1,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]})";
  const ImageIndex index = parse_index(text, "i");
  CHECK(print_index(index) == text);
  CHECK(is_index_document(text, "", "i"));
}

TEST_CASE("an image config survives parse and print") {
  const std::string text =
      R"({"created":"2024-01-02T03:04:05Z","author":"me","architecture":"amd64","os":"linux","config":{"User":"1:2",)"
      R"("ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Entrypoint":["/e"],"Cmd":["c"],"Volumes":{"/v":{}},)"
      R"("WorkingDir":"/w","Labels":{"l":"m"},"StopSignal":"SIGQUIT","StopTimeout":5,"Healthcheck":{"Test":["CMD","x"],)"
      R"("Interval":1000000000,"Retries":3},"Shell":["sh"],"OnBuild":["RUN x"]},"rootfs":{"type":"layers","diff_ids":[")" +
      kDigest + R"("]},"history":[{"created":"2024-01-02T03:04:05Z","created_by":"x","empty_layer":true}]})";
  const ImageConfig config = parse_image_config(text, "c");
  CHECK(print_image_config(config) == text);
  CHECK(config.config.healthcheck->interval == std::chrono::seconds(1));
  CHECK(print_run_config(parse_run_config(print_run_config(config.config), "r")) == print_run_config(config.config));
}

TEST_CASE("null members of docker's documents mean nothing") {
  const ImageConfig config = parse_image_config(
      R"({"config":{"Cmd":null,"Env":null,"Volumes":null,"Labels":null},"rootfs":{"type":"layers","diff_ids":null}})",
      "c");
  CHECK(config.config.cmd.empty());
  CHECK(config.diff_ids.empty());
}

TEST_CASE("errors name the document and the path") {
  CHECK(message_of([] { parse_manifest("{", "manifest x"); }).find("manifest x: not valid JSON") == 0);
  CHECK(message_of([] { parse_manifest(R"({"schemaVersion":1})", "m"); }).find("schema 1") != std::string::npos);
  CHECK(message_of([] { parse_manifest(R"({"schemaVersion":2})", "m"); }) ==
        "m: the document: member \"config\" is missing");
  const std::string bad =
      R"({"schemaVersion":2,"config":)" + descriptor("x") + R"(,"layers":[{"digest":"sha256:zz","size":1}]})";
  CHECK(message_of([&] { parse_manifest(bad, "m"); }).find("m: layers[0].digest: is not a digest") == 0);
  const std::string negative =
      R"({"schemaVersion":2,"config":)" + descriptor("x") + R"(,"layers":[{"digest":")" + kDigest + R"(","size":-1}]})";
  CHECK(message_of([&] { parse_manifest(negative, "m"); }) == "m: layers[0].size: is negative");
  CHECK(message_of([] { parse_image_config(R"({"config":{"Env":[1]},"rootfs":{}})", "c"); }) ==
        "c: config.Env[0]: must be a string");
  CHECK_THROWS_AS(parse_manifest(std::string(kMaxDocumentBytes + 1, ' '), "m"), Error);
}

TEST_CASE("platforms") {
  CHECK(parse_platform("linux/aarch64").str() == "linux/arm64");
  CHECK(parse_platform("linux/arm/v7").variant == "v7");
  CHECK(parse_platform("x86_64").architecture == "amd64");
  CHECK_THROWS_AS(parse_platform("a/b/c/d"), kelp::UsageError);
  CHECK_THROWS_AS(parse_platform("a//b"), kelp::UsageError);

  ImageIndex index;
  const auto add = [&](const char* os, const char* arch, const char* variant) {
    index.manifests.push_back({.digest = kDigest, .platform = Platform{os, arch, variant, "", {}}});
  };
  add("unknown", "unknown", "");
  add("linux", "amd64", "");
  add("linux", "arm", "v5");
  add("linux", "arm", "v7");
  add("linux", "arm64", "v8");
  CHECK(choose_platform(index, {"linux", "amd64", "", "", {}}) == &index.manifests[1]);
  CHECK(choose_platform(index, {"linux", "arm", "v6", "", {}}) == &index.manifests[2]);
  CHECK(choose_platform(index, {"linux", "arm", "", "", {}}) == &index.manifests[3]);
  CHECK(choose_platform(index, {"linux", "arm64", "", "", {}}) == &index.manifests[4]);
  CHECK(choose_platform(index, {"linux", "s390x", "", "", {}}) == nullptr);
}
