#include "image/tar_writer.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "base/text.h"

namespace kelp::image {

namespace {

constexpr size_t kBlock = 512;
constexpr size_t kNameSize = 100, kPrefixSize = 155;
constexpr std::uint64_t kMaxOctal7 = 07777777, kMaxOctal11 = 077777777777;

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

/// Where ustar may cut a name into prefix and name; npos: it does not fit, 0: no cut needed.
size_t cut_of(std::string_view name) {
  if (name.size() <= kNameSize) return 0;
  for (size_t slash = name.find('/'); slash != std::string_view::npos; slash = name.find('/', slash + 1)) {
    const size_t rest = name.size() - slash - 1;
    if (slash > 0 && slash <= kPrefixSize && rest > 0 && rest <= kNameSize) return slash;
  }
  return std::string_view::npos;
}

void add_record(std::string& records, std::string_view key, std::string_view value) {
  const size_t bare = key.size() + value.size() + 3;  // blank, '=', newline
  size_t length = bare + std::to_string(bare).size();
  if (std::to_string(length).size() != std::to_string(bare).size()) length = bare + std::to_string(length).size();
  records += fmt::format("{} {}=", length, key);
  records += value;
  records += '\n';
}

void put_octal(char* field, size_t size, std::uint64_t value) {
  const std::string text = fmt::format("{:0{}o}", value, size - 1);
  std::memcpy(field, text.data(), size - 1);
}

char type_letter(TarEntry::Type type) {
  switch (type) {
    case TarEntry::Type::file:
      return '0';
    case TarEntry::Type::hard_link:
      return '1';
    case TarEntry::Type::symlink:
      return '2';
    case TarEntry::Type::character:
      return '3';
    case TarEntry::Type::block:
      return '4';
    case TarEntry::Type::directory:
      return '5';
    case TarEntry::Type::fifo:
      break;
  }
  return '6';
}

}  // namespace

void TarWriter::header(const TarEntry& entry, char type, const std::string& name, const std::string& link) {
  std::array<char, kBlock> block{};
  const size_t cut = cut_of(name);
  const std::string_view whole = name;
  const bool split_name = cut != 0 && cut != std::string_view::npos;
  // What does not fit stands in the pax header; the field gets the beginning, for readers without pax.
  const std::string_view tail = split_name ? whole.substr(cut + 1) : whole.substr(0, kNameSize);
  std::memcpy(block.data(), tail.data(), tail.size());
  if (split_name) std::memcpy(block.data() + 345, whole.data(), cut);
  put_octal(block.data() + 100, 8, entry.mode & 07777U);
  put_octal(block.data() + 108, 8, std::min(entry.uid, kMaxOctal7));
  put_octal(block.data() + 116, 8, std::min(entry.gid, kMaxOctal7));
  put_octal(block.data() + 124, 12, std::min(entry.size, kMaxOctal11));
  const auto time = static_cast<std::uint64_t>(std::max<std::int64_t>(entry.mtime, 0));
  put_octal(block.data() + 136, 12, std::min(time, kMaxOctal11));
  block[156] = type;
  std::memcpy(block.data() + 157, link.data(), std::min(link.size(), kNameSize));
  std::memcpy(block.data() + 257,
              "ustar\0"
              "00",
              8);
  if (type == '3' || type == '4') {
    put_octal(block.data() + 329, 8, entry.major);
    put_octal(block.data() + 337, 8, entry.minor);
  }
  std::memset(block.data() + 148, ' ', 8);
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  put_octal(block.data() + 148, 7, sum);
  block[154] = 0;
  out_.write(block.data(), block.size());
  written_ += block.size();
}

void TarWriter::member(const TarEntry& entry) {
  pad();
  std::string name = entry.name;
  if (entry.type == TarEntry::Type::directory && !ends_with(name, "/")) name += '/';
  std::string records;
  if (cut_of(name) == std::string::npos || !is_ascii(name)) add_record(records, "path", name);
  if (entry.link.size() > kNameSize || !is_ascii(entry.link)) add_record(records, "linkpath", entry.link);
  if (entry.size > kMaxOctal11) add_record(records, "size", std::to_string(entry.size));
  if (entry.uid > kMaxOctal7) add_record(records, "uid", std::to_string(entry.uid));
  if (entry.gid > kMaxOctal7) add_record(records, "gid", std::to_string(entry.gid));
  if (entry.mtime < 0) add_record(records, "mtime", std::to_string(entry.mtime));
  for (const auto& [key, value] : entry.xattrs) add_record(records, "SCHILY.xattr." + key, value);
  if (!records.empty()) {
    const TarEntry pax{.mode = 0644, .size = records.size()};
    const size_t slash = entry.name.rfind('/', entry.name.size() < 2 ? 0 : entry.name.size() - 2);
    std::string short_name = "PaxHeaders.0/";
    short_name += entry.name.substr(slash == std::string::npos ? 0 : slash + 1);
    short_name.resize(std::min(short_name.size(), kNameSize));
    header(pax, 'x', short_name, "");
    left_ = records.size();
    data(records.data(), records.size());
    pad();
  }
  header(entry, type_letter(entry.type), name, entry.link);
  left_ = entry.type == TarEntry::Type::file ? entry.size : 0;
}

void TarWriter::data(const void* bytes, size_t size) {
  if (size > left_) throw_error("tar: more data than the header says");
  out_.write(bytes, size);
  left_ -= size;
  written_ += size;
}

void TarWriter::pad() {
  if (left_ != 0) throw_error("tar: {} bytes of a member are missing", left_);
  static constexpr std::array<char, kBlock> kZeros{};
  if (const size_t over = written_ % kBlock; over != 0) {
    out_.write(kZeros.data(), kBlock - over);
    written_ += kBlock - over;
  }
}

void TarWriter::file(const std::string& name, std::string_view content, std::int64_t mtime) {
  TarEntry entry{.name = name, .mode = 0644, .uid = uid_, .gid = gid_, .mtime = mtime, .size = content.size()};
  member(entry);
  data(content.data(), content.size());
}

void TarWriter::finish() {
  pad();
  static constexpr std::array<char, 2 * kBlock> kEnd{};
  out_.write(kEnd.data(), kEnd.size());
  written_ += kEnd.size();
  out_.finish();
}

}  // namespace kelp::image
