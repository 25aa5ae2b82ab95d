#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest_name.h"

namespace kelp::image {

/// Streaming sha256 (OpenSSL's EVP, which uses the processor's SHA instructions).
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void update(const void* data, size_t size);
  void update(std::string_view text) { update(text.data(), text.size()); }
  /// Bytes so far.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  /// Ends the stream; call once.
  [[nodiscard]] std::string hex();
  [[nodiscard]] DigestName digest() { return DigestName::sha256_hex(hex()); }

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::uint64_t size_ = 0;
};

DigestName sha256_of(std::string_view text);
/// Reads the whole file from its start with pread.
DigestName sha256_of_file(int fd);

/// Hex chain ids for diff ids ("sha256:…", base first).
/// source: OCI image-spec config.md, "Layer ChainID"
std::vector<std::string> chain_ids(const std::vector<std::string>& diff_ids);

}  // namespace kelp::image
