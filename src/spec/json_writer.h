#pragma once

#include <charconv>
#include <concepts>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"

namespace kelp::spec {

/// Writes JSON on one line into one growing string: the documents of a start are printed in microseconds.
/// The caller keeps begin/end balanced; commas are set here.
class JsonWriter {
 public:
  explicit JsonWriter(size_t reserve = 4096) { out_.reserve(reserve); }

  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  JsonWriter& key(std::string_view name) {
    comma();
    quote(name);
    out_ += ':';
    fresh_ = true;
    return *this;
  }
  JsonWriter& value(std::string_view text) {
    comma();
    quote(text);
    return *this;
  }
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(bool flag) {
    comma();
    out_ += flag ? "true" : "false";
    return *this;
  }
  template <std::integral Int>
  JsonWriter& value(Int number) {
    comma();
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    out_.append(digits, end);
    return *this;
  }
  JsonWriter& value(const std::vector<std::string>& list) {
    begin_array();
    for (const std::string& item : list) value(std::string_view(item));
    return end_array();
  }
  template <typename T>
  JsonWriter& member(std::string_view name, const T& content) {
    return key(name).value(content);
  }
  /// Only when the text or list is not empty.
  template <typename T>
  JsonWriter& member_if(std::string_view name, const T& content) {
    return content.empty() ? *this : key(name).value(content);
  }
  /// Only when the optional has a value.
  template <typename T>
  JsonWriter& member_opt(std::string_view name, const T& content) {
    return content ? key(name).value(*content) : *this;
  }

  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  JsonWriter& open(char c) {
    comma();
    out_ += c;
    fresh_ = true;
    return *this;
  }
  JsonWriter& close(char c) {
    out_ += c;
    fresh_ = false;
    return *this;
  }
  void comma() {
    if (!fresh_) out_ += ',';
    fresh_ = false;
  }
  void quote(std::string_view text) {
    for (const char c : text)
      if (c < 0x20 || c > 0x7e || c == '"' || c == '\\') {  // a negative char is a byte beyond ASCII
        out_ += log::json_quote(text);
        return;
      }
    out_ += '"';
    out_ += text;
    out_ += '"';
  }

  std::string out_;
  bool fresh_ = true;
};

}  // namespace kelp::spec
