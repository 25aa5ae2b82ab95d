#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace kelp::spec {

class JsonDoc;

/// A place in a parsed document: cheap to copy, valid as long as its JsonDoc. An absent member and null are both "not
/// there" (false), as Go's decoder has it. Accessors throw Error "path.to.member[3]: what is wrong".
class JsonValue {
 public:
  enum class Type : std::uint8_t { absent, null, boolean, integer, unsigned_integer, real, string, array, object };

  [[nodiscard]] Type type() const noexcept;
  explicit operator bool() const noexcept { return type() != Type::absent && type() != Type::null; }

  /// Member of an object (the last one of that name); absent when there is none. Error when this is no object.
  [[nodiscard]] JsonValue operator[](std::string_view key) const;
  /// As operator[], but its absence is an Error.
  [[nodiscard]] JsonValue require(std::string_view key) const;

  [[nodiscard]] const std::string& str() const;
  [[nodiscard]] bool boolean() const;
  /// An integer in [min, max]; a real number is refused, as 1.5 of anything has no meaning here.
  template <typename Int>
  [[nodiscard]] Int integer(Int min = std::numeric_limits<Int>::min(),
                            Int max = std::numeric_limits<Int>::max()) const {
    if constexpr (std::is_signed_v<Int>)
      return static_cast<Int>(signed_in(min, max));
    else
      return static_cast<Int>(unsigned_in(min, max));
  }
  [[nodiscard]] std::vector<std::string> strings() const;

  /// Elements of an array, or members of an object, in their order: for (JsonValue v = x.first(); v.here(); v =
  /// v.next()).
  [[nodiscard]] JsonValue first_element() const;
  [[nodiscard]] JsonValue first_member() const;
  [[nodiscard]] JsonValue next() const noexcept;
  [[nodiscard]] bool here() const noexcept { return node_ != 0; }
  /// Name of this member; "" for elements and the root.
  [[nodiscard]] const std::string& key() const noexcept;
  /// Number of elements or members.
  [[nodiscard]] size_t size() const noexcept;

  /// "linux.seccomp.syscalls[3].action"; "" for the root.
  [[nodiscard]] std::string path() const;
  /// Throws Error "path: message".
  [[noreturn]] void fail(std::string_view message) const;

 private:
  friend class JsonDoc;
  JsonValue(const JsonDoc* doc, std::uint32_t node) noexcept : doc_(doc), node_(node) {}
  [[nodiscard]] std::int64_t signed_in(std::int64_t min, std::int64_t max) const;
  [[nodiscard]] std::uint64_t unsigned_in(std::uint64_t min, std::uint64_t max) const;

  const JsonDoc* doc_;
  std::uint32_t node_;  ///< 0 = absent, 1 = root
};

/// A JSON text as a flat list of nodes, made by the SAX parser of nlohmann/json: a fifth of the cost of its tree, and
/// every node knows its path.
class JsonDoc {
 public:
  /// Strict JSON (RFC 8259), one value. throws Error "line 3, column 7: …"; strings that hold a NUL are refused, since
  /// every use of one ends in a C string. prefix is put in front of all paths ("process" for a bare process document).
  static JsonDoc parse(std::string_view text, size_t max_bytes, std::string prefix = "");
  [[nodiscard]] JsonValue root() const noexcept { return {this, 1}; }

 private:
  friend class JsonValue;
  friend struct JsonBuilder;
  struct Node {
    JsonValue::Type type = JsonValue::Type::absent;
    bool boolean = false;
    std::uint32_t parent = 0, next = 0, first = 0, last = 0, count = 0, index = 0;
    std::uint64_t number = 0;
    std::string key, text;
  };
  std::vector<Node> nodes_;
  std::string prefix_;
};

}  // namespace kelp::spec
