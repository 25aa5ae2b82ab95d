#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include <zstd.h>

#include "base/error.h"
#include "image/compression.h"
#include "image/digest.h"
#include "image/text_source.h"

using kelp::Error;
using namespace kelp::image;

namespace {

class TextSink : public Sink {
 public:
  void write(const void* data, size_t size) override { text.append(static_cast<const char*>(data), size); }
  std::string text;
};

std::string squeeze(const std::string& text, Compression kind) {
  TextSink out;
  const auto sink = compress(out, kind);
  sink->write(text.data(), text.size());
  sink->finish();
  return out.text;
}

std::string expand(const std::string& text, size_t piece, size_t chunk = 1000) {
  TextSource source(text, piece);
  const auto plain = decompress(source, "blob");
  std::string result;
  std::string buffer(chunk, '\0');
  while (const size_t got = plain->read(buffer.data(), buffer.size())) result.append(buffer, 0, got);
  return result;
}

std::string sample() {
  std::string text;
  for (unsigned i = 0; i < 20000; ++i) text += std::to_string(i * 2654435761U);
  return text;
}

}  // namespace

TEST_CASE("what is compressed comes back, in pieces of any size") {
  const std::string text = sample();
  for (const Compression kind : {Compression::none, Compression::gzip, Compression::zstd}) {
    CAPTURE(compression_name(kind));
    const std::string small = squeeze(text, kind);
    CHECK(detect_compression(small) == kind);
    CHECK(expand(small, 1 << 20) == text);
    CHECK(expand(small, 777) == text);
    CHECK(expand(small + small, 4096) == text + text);
    if (kind != Compression::none) {
      CHECK(expand(squeeze("", kind), 100).empty());
      for (const size_t cut : {size_t{1}, size_t{9}, small.size() / 2}) {
        CHECK_THROWS_AS(expand(small.substr(0, small.size() - cut), 4096), Error);
      }
      std::string damaged = small;
      for (size_t i = 200; i < 260; ++i) damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
      CHECK_THROWS_AS(expand(damaged, 4096), Error);
    }
  }
  CHECK(expand("", 10).empty());
  CHECK(expand(squeeze(text, Compression::gzip) + std::string(512, '\0'), 4096) == text);
}

TEST_CASE("a large zstd window is in a file, one beyond measure is refused") {
  std::string text;
  for (unsigned i = 0; text.size() < 30 << 20; ++i) text += std::to_string(i * 2654435761U);
  text += text.substr(0, 9 << 20);  // refers to what is 30 MiB back
  const auto pack = [&](int window) {
    const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(), ZSTD_freeCCtx);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, 1);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_enableLongDistanceMatching, 1);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_windowLog, window);
    std::string packed(ZSTD_compressBound(text.size()), '\0');
    ZSTD_outBuffer out{packed.data(), packed.size(), 0};
    ZSTD_inBuffer in{text.data(), text.size(), 0};
    // Twice, so that the size is not known at the beginning and the window is not made smaller.
    ZSTD_inBuffer first{text.data(), 1000, 0};
    ZSTD_compressStream2(context.get(), &out, &first, ZSTD_e_flush);
    in.pos = 1000;
    REQUIRE(ZSTD_compressStream2(context.get(), &out, &in, ZSTD_e_end) == 0);
    packed.resize(out.pos);
    return packed;
  };
  const auto unpack = [](const std::string& packed, const InflateLimits& limits) {
    TextSource source(packed, 1 << 16);
    const auto plain = decompress(source, "blob", limits);
    std::string result, buffer(100000, '\0');
    while (const size_t got = plain->read(buffer.data(), buffer.size())) result.append(buffer, 0, got);
    return result;
  };
  const std::string packed = pack(26), twice = packed + pack(25);
  CHECK((unpack(packed, InflateLimits::for_room_in("/tmp")) == text));
  CHECK((unpack(packed, InflateLimits::none()) == text));
  CHECK((unpack(packed, {.scratch = "/nowhere"}) == text));
  CHECK((unpack(twice, InflateLimits::for_room_in("/tmp")) == text + text));
  CHECK_THROWS_WITH_AS(unpack(pack(28), {}), "blob: its zstd data wants a window of more than 128 MiB: refused", Error);
}

TEST_CASE("a bomb is refused where there is no room for it") {
  const std::string zeros(100 << 20, '\0');
  const std::string bomb = squeeze(zeros, Compression::zstd);
  TextSource source(bomb, 1 << 16);
  const auto plain = decompress(source, "blob", {.max_ratio = 100});
  std::string buffer(1 << 20, '\0');
  CHECK_THROWS_AS(
      [&] {
        while (plain->read(buffer.data(), buffer.size()) > 0) {
        }
      }(),
      Error);
  TextSource again(bomb, 1 << 16);
  const auto judged = decompress(again, "blob", {.max_ratio = 100, .judged_after = 200 << 20});
  size_t total = 0;
  while (const size_t got = judged->read(buffer.data(), buffer.size())) total += got;
  CHECK(total == zeros.size());
}

TEST_CASE("digests and chain ids") {
  CHECK(sha256_of("").hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  const std::string a = sha256_of("a").str();
  const std::string b = sha256_of("b").str();
  const auto chains = chain_ids({a, b});
  REQUIRE(chains.size() == 2);
  CHECK(chains[0] == a.substr(7));
  CHECK(chains[1] == sha256_of(a + " " + b).hex());
}
