#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

namespace kelp {

/// A checked content digest name: "sha256:" + 64 lower-case hex digits, or "sha512:" + 128.
/// A value type only; hashing lives in image/digest.
/// source: OCI image-spec, descriptor.md#digests
class DigestName {
 public:
  /// nullopt unless the whole text is a digest of a known algorithm.
  static std::optional<DigestName> parse(std::string_view text);
  /// As parse(), throws Error naming the text.
  static DigestName require(std::string_view text);
  /// From 64 lower-case hex digits.
  static DigestName sha256_hex(std::string_view hex) { return require("sha256:" + std::string(hex)); }

  [[nodiscard]] const std::string& str() const noexcept { return text_; }
  [[nodiscard]] std::string_view algorithm() const noexcept { return std::string_view(text_).substr(0, 6); }
  [[nodiscard]] std::string_view hex() const noexcept { return std::string_view(text_).substr(7); }
  /// First 12 hex digits, as tables show ids.
  [[nodiscard]] std::string_view short_hex() const noexcept { return hex().substr(0, 12); }

  auto operator<=>(const DigestName&) const = default;

 private:
  explicit DigestName(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

/// true for 64 lower-case hex digits (container and image ids).
bool is_full_id(std::string_view text) noexcept;
/// true for 1..64 lower-case hex digits.
bool is_id_prefix(std::string_view text) noexcept;

}  // namespace kelp
