#include "spec/json_doc.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"

namespace kelp::spec {

using Type = JsonValue::Type;

/// Receives the events of the parser. Node 0 stands for "absent", node 1 is the root.
struct JsonBuilder {
  static constexpr size_t kMaxNodes = 1'000'000;
  explicit JsonBuilder(JsonDoc& target) : nodes(target.nodes_) {}

  std::vector<JsonDoc::Node>& nodes;
  std::uint32_t open = 0;  ///< the array or object being filled
  std::string next_key;
  std::size_t error_position = 0;
  std::string error_text;

  std::uint32_t add(Type type) {
    const auto index = static_cast<std::uint32_t>(nodes.size());
    JsonDoc::Node& node = nodes.emplace_back();
    node.type = type;
    node.parent = open;
    if (open != 0) {
      JsonDoc::Node& parent = nodes[open];
      node.index = parent.count++;
      if (parent.type == Type::object) node.key = std::move(next_key);
      if (parent.last != 0)
        nodes[parent.last].next = index;
      else
        parent.first = index;
      parent.last = index;
    }
    return index;
  }

  /// A list of a million zeros is 2 MB of text and 100 MB of nodes: no document of ours comes near.
  bool within_bounds() {
    if (nodes.size() < kMaxNodes) return true;
    error_text = fmt::format("more than {} values", kMaxNodes);
    return false;
  }
  bool null() {
    add(Type::null);
    return within_bounds();
  }
  bool boolean(bool value) {
    nodes[add(Type::boolean)].boolean = value;
    return within_bounds();
  }
  bool number_integer(std::int64_t value) {
    nodes[add(Type::integer)].number = static_cast<std::uint64_t>(value);
    return within_bounds();
  }
  bool number_unsigned(std::uint64_t value) {
    nodes[add(Type::unsigned_integer)].number = value;
    return within_bounds();
  }
  bool number_float(double /*value*/, const std::string& written) {
    nodes[add(Type::real)].text = written;
    return within_bounds();
  }
  bool string(std::string& value) {
    nodes[add(Type::string)].text = std::move(value);
    return within_bounds();
  }
  bool binary(std::vector<std::uint8_t>& /*value*/) { return false; }
  bool start_object(std::size_t /*elements*/) {
    open = add(Type::object);
    return within_bounds();
  }
  bool key(std::string& value) {
    next_key = std::move(value);
    return within_bounds();
  }
  bool end_object() {
    open = nodes[open].parent;
    return within_bounds();
  }
  bool start_array(std::size_t /*elements*/) {
    open = add(Type::array);
    return within_bounds();
  }
  bool end_array() { return end_object(); }
  bool parse_error(std::size_t position, const std::string& /*token*/, const nlohmann::detail::exception& error) {
    error_position = position;
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error …": our own place is enough.
    error_text = error.what();
    if (const size_t colon = error_text.find(": "); colon != std::string::npos) error_text.erase(0, colon + 2);
    return false;
  }
};

JsonDoc JsonDoc::parse(std::string_view text, size_t max_bytes, std::string prefix) {
  if (text.size() > max_bytes) throw_error("the JSON text has {} bytes, {} are allowed", text.size(), max_bytes);
  JsonDoc doc;
  doc.prefix_ = std::move(prefix);
  doc.nodes_.reserve(64 + text.size() / 16);
  doc.nodes_.emplace_back();
  JsonBuilder builder(doc);
  if (!nlohmann::json::sax_parse(text.data(), text.data() + text.size(), &builder)) {
    const std::string_view before = text.substr(0, std::min(builder.error_position, text.size()));
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const size_t start = before.rfind('\n');
    const size_t column = start == std::string_view::npos ? before.size() : before.size() - start - 1;
    throw_error("line {}, column {}: {}", line, column, printable(builder.error_text));
  }
  return doc;
}

Type JsonValue::type() const noexcept { return doc_->nodes_[node_].type; }

JsonValue JsonValue::operator[](std::string_view key) const {
  const JsonDoc::Node& node = doc_->nodes_[node_];
  if (node.type == Type::absent || node.type == Type::null) return {doc_, 0};
  if (node.type != Type::object) fail("must be an object");
  std::uint32_t found = 0;
  for (std::uint32_t child = node.first; child != 0; child = doc_->nodes_[child].next)
    if (doc_->nodes_[child].key == key) found = child;
  return {doc_, found};
}

JsonValue JsonValue::require(std::string_view key) const {
  JsonValue value = (*this)[key];
  if (!value) {
    const std::string here = path();
    throw_error("{}{}{}: is required", here, here.empty() ? "" : ".", key);
  }
  return value;
}

const std::string& JsonValue::str() const {
  const JsonDoc::Node& node = doc_->nodes_[node_];
  if (node.type != Type::string) fail("must be a string");
  if (node.text.find('\0') != std::string::npos) fail("holds a NUL character");
  return node.text;
}

bool JsonValue::boolean() const {
  if (type() != Type::boolean) fail("must be true or false");
  return doc_->nodes_[node_].boolean;
}

std::int64_t JsonValue::signed_in(std::int64_t min, std::int64_t max) const {
  const JsonDoc::Node& node = doc_->nodes_[node_];
  if (node.type == Type::integer || (node.type == Type::unsigned_integer && node.number <= INT64_MAX)) {
    const auto value = static_cast<std::int64_t>(node.number);
    if (value >= min && value <= max) return value;
    fail(fmt::format("{} is not in {}..{}", value, min, max));
  }
  if (node.type == Type::unsigned_integer) fail(fmt::format("{} is not in {}..{}", node.number, min, max));
  if (node.type == Type::real) fail(fmt::format("{} is not an integer", node.text));
  fail("must be an integer");
}

std::uint64_t JsonValue::unsigned_in(std::uint64_t min, std::uint64_t max) const {
  const JsonDoc::Node& node = doc_->nodes_[node_];
  if (node.type == Type::unsigned_integer) {
    if (node.number >= min && node.number <= max) return node.number;
    fail(fmt::format("{} is not in {}..{}", node.number, min, max));
  }
  if (node.type == Type::integer) {
    const auto value = static_cast<std::int64_t>(node.number);
    if (value >= 0 && node.number >= min && node.number <= max) return node.number;
    fail(fmt::format("{} is not in {}..{}", value, min, max));
  }
  if (node.type == Type::real) fail(fmt::format("{} is not an integer", node.text));
  fail("must be an integer");
}

std::vector<std::string> JsonValue::strings() const {
  std::vector<std::string> all;
  if (!*this) return all;
  all.reserve(size());
  for (JsonValue item = first_element(); item.here(); item = item.next()) all.push_back(item.str());
  return all;
}

JsonValue JsonValue::first_element() const {
  const JsonDoc::Node& node = doc_->nodes_[node_];
  if (node.type == Type::absent || node.type == Type::null) return {doc_, 0};
  if (node.type != Type::array) fail("must be an array");
  return {doc_, node.first};
}

JsonValue JsonValue::first_member() const {
  const JsonDoc::Node& node = doc_->nodes_[node_];
  if (node.type == Type::absent || node.type == Type::null) return {doc_, 0};
  if (node.type != Type::object) fail("must be an object");
  return {doc_, node.first};
}

JsonValue JsonValue::next() const noexcept { return {doc_, doc_->nodes_[node_].next}; }
const std::string& JsonValue::key() const noexcept { return doc_->nodes_[node_].key; }
size_t JsonValue::size() const noexcept { return doc_->nodes_[node_].count; }

std::string JsonValue::path() const {
  if (node_ <= 1) return doc_->prefix_;
  const JsonDoc::Node& node = doc_->nodes_[node_];
  const std::string parent = JsonValue(doc_, node.parent).path();
  if (doc_->nodes_[node.parent].type == Type::array) return fmt::format("{}[{}]", parent, node.index);
  return parent.empty() ? printable(node.key) : parent + "." + printable(node.key);
}

void JsonValue::fail(std::string_view message) const {
  const std::string where = path();
  throw_error("{}{}{}", where, where.empty() ? "" : ": ", message);
}

}  // namespace kelp::spec
