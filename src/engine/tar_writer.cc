#include "engine/tar_writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"

namespace kelp::engine {
namespace {

constexpr size_t kBlock = 512;

struct UstarHeader {
  char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6], version[2],
      user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};
static_assert(sizeof(UstarHeader) == kBlock);

/// Octal digits with a closing zero byte; false when the number is too large for the field.
template <size_t N>
bool put_octal(char (&field)[N], std::uint64_t value) {
  const std::string digits = fmt::format("{:0{}o}", value, N - 1);
  if (digits.size() > N - 1) {
    std::memset(field, '0', N - 1);
    return false;
  }
  std::memcpy(field, digits.data(), digits.size());
  return true;
}

template <size_t N>
bool put_text(char (&field)[N], std::string_view text) {
  std::memcpy(field, text.data(), std::min(N, text.size()));
  return text.size() <= N;
}

/// "LENGTH key=value\n", the length counting itself.
std::string pax_record(std::string_view key, std::string_view value) {
  const size_t body = key.size() + value.size() + 3;
  size_t length = body + 1;
  while (fmt::format("{}", length).size() + body != length) length = fmt::format("{}", length).size() + body;
  return fmt::format("{} {}={}\n", length, key, value);
}

void set_checksum(UstarHeader& header) {
  std::memset(header.checksum, ' ', sizeof header.checksum);
  unsigned sum = 0;
  for (size_t i = 0; i < kBlock; ++i) sum += reinterpret_cast<const unsigned char*>(&header)[i];
  const std::string digits = fmt::format("{:06o}", sum);
  std::memcpy(header.checksum, digits.data(), 6);
  header.checksum[6] = '\0';
}

/// Extended attributes of an open file or directory; those of overlayfs are its own matter.
std::map<std::string, std::string> read_attributes(int fd) {
  std::map<std::string, std::string> attributes;
  const ssize_t length = ::flistxattr(fd, nullptr, 0);
  if (length <= 0) return attributes;
  std::string names(static_cast<size_t>(length), '\0');
  const ssize_t got = ::flistxattr(fd, names.data(), names.size());
  if (got <= 0) return attributes;
  names.resize(static_cast<size_t>(got));
  for (const auto& name : split(names, '\0')) {
    if (name.empty() || starts_with(name, "user.overlay.") || starts_with(name, "trusted.overlay.")) continue;
    const ssize_t size = ::fgetxattr(fd, name.c_str(), nullptr, 0);
    if (size < 0) continue;
    std::string value(static_cast<size_t>(size), '\0');
    if (::fgetxattr(fd, name.c_str(), value.data(), value.size()) == size) attributes[name] = value;
  }
  return attributes;
}

std::uint64_t mount_id(int dirfd, const char* name) {
  struct statx info {};
  const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name == '\0' ? AT_EMPTY_PATH : 0);
  if (::statx(dirfd, name, flags, STATX_MNT_ID, &info) != 0) throw_errno("look at {}", quoted(name));
  return info.stx_mnt_id;
}

}  // namespace

void TarWriter::write(std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = ::write(fd_, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_errno("write the archive");
    data.remove_prefix(static_cast<size_t>(written));
  }
}

void TarWriter::pad(std::uint64_t size) {
  static constexpr char kZeros[kBlock] = {};
  if (size % kBlock != 0) write({kZeros, kBlock - size % kBlock});
}

void TarWriter::header(const std::string& path, const struct stat& info, char type, std::uint64_t size,
                       const std::string& link, const std::map<std::string, std::string>& attributes) {
  UstarHeader header{};
  std::string records;
  if (!put_text(header.name, path)) records += pax_record("path", path);
  if (!put_text(header.link, link)) records += pax_record("linkpath", link);
  put_octal(header.mode, info.st_mode & 07777);
  const auto [uid, gid] = owner_.value_or(std::pair(info.st_uid, info.st_gid));
  if (!put_octal(header.uid, uid)) records += pax_record("uid", fmt::format("{}", uid));
  if (!put_octal(header.gid, gid)) records += pax_record("gid", fmt::format("{}", gid));
  if (!put_octal(header.size, size)) records += pax_record("size", fmt::format("{}", size));
  put_octal(header.mtime, static_cast<std::uint64_t>(std::max<time_t>(0, info.st_mtim.tv_sec)));
  if (type == '3' || type == '4') {
    put_octal(header.major, major(info.st_rdev));
    put_octal(header.minor, minor(info.st_rdev));
  }
  header.type = type;
  std::memcpy(header.magic, "ustar", 6);
  std::memcpy(header.version, "00", 2);
  for (const auto& [name, value] : attributes) records += pax_record("SCHILY.xattr." + name, value);
  if (!records.empty()) {
    UstarHeader extended{};
    put_text(extended.name, "PaxHeaders/" + path.substr(0, 80));
    put_octal(extended.mode, 0644);
    put_octal(extended.uid, 0);
    put_octal(extended.gid, 0);
    put_octal(extended.size, records.size());
    put_octal(extended.mtime, 0);
    extended.type = 'x';
    std::memcpy(extended.magic, "ustar", 6);
    std::memcpy(extended.version, "00", 2);
    set_checksum(extended);
    write({reinterpret_cast<const char*>(&extended), kBlock});
    write(records);
    pad(records.size());
  }
  set_checksum(header);
  write({reinterpret_cast<const char*>(&header), kBlock});
}

void TarWriter::add_file(int fd, const std::string& path, const struct stat& info,
                         const std::map<std::string, std::string>& attributes) {
  const auto size = static_cast<std::uint64_t>(info.st_size);
  header(path, info, '0', size, "", attributes);
  std::string buffer(256 * 1024, '\0');
  std::uint64_t left = size;
  while (left > 0) {
    const ssize_t got = ::read(fd, buffer.data(), std::min<std::uint64_t>(buffer.size(), left));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read {}", quoted(path));
    if (got == 0) break;
    write(std::string_view(buffer).substr(0, static_cast<size_t>(got)));
    left -= static_cast<std::uint64_t>(got);
  }
  // A file that became shorter while it was read: the length stands in the header already, zeros fill it up.
  std::fill(buffer.begin(), buffer.end(), '\0');
  for (; left > 0; left -= std::min<std::uint64_t>(left, buffer.size())) {
    write(std::string_view(buffer).substr(0, std::min<std::uint64_t>(left, buffer.size())));
  }
  pad(size);
}

void TarWriter::add(int dirfd, const char* name, const std::string& path, bool same_mount) {
  struct stat info {};
  if (::fstatat(dirfd, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return;  // gone since the directory was read
    throw_errno("look at {}", quoted(path));
  }
  if (S_ISSOCK(info.st_mode)) return;
  if (same_mount && mount_ != 0 && mount_id(dirfd, name) != mount_) {
    // What lies below the mount cannot be seen from here, and what is mounted is not this tree's.
    info.st_uid = info.st_gid = 0;
    info.st_mode = S_ISDIR(info.st_mode) ? S_IFDIR | 0755 : S_IFREG | 0644;
    header(S_ISDIR(info.st_mode) ? path + "/" : path, info, S_ISDIR(info.st_mode) ? '5' : '0', 0, "", {});
    return;
  }
  if (S_ISLNK(info.st_mode)) {
    std::string target(4096, '\0');
    const ssize_t length = ::readlinkat(dirfd, name, target.data(), target.size());
    if (length < 0) throw_errno("read the link {}", quoted(path));
    target.resize(static_cast<size_t>(length));
    header(path, info, '2', 0, target, {});
    return;
  }
  if (!S_ISDIR(info.st_mode) && info.st_nlink > 1) {
    const auto [first, fresh] = links_.emplace(std::pair(info.st_dev, info.st_ino), path);
    if (!fresh) {
      header(path, info, '1', 0, first->second, {});
      return;
    }
  }
  if (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) {
    const bool directory = S_ISDIR(info.st_mode);
    Fd fd(::openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (directory ? O_DIRECTORY : 0)));
    if (!fd.valid()) throw_errno("open {}", quoted(path));
    const auto attributes = read_attributes(fd.get());
    if (!directory) {
      add_file(fd.get(), path, info, attributes);
      return;
    }
    header(path + "/", info, '5', 0, "", attributes);
    add_contents(fd.get(), path + "/", same_mount);
    return;
  }
  header(path, info, S_ISCHR(info.st_mode) ? '3' : S_ISBLK(info.st_mode) ? '4' : '6', 0, "", {});
}

void TarWriter::add_contents(int dirfd, const std::string& prefix, bool same_mount) {
  if (mount_ == 0) mount_ = mount_id(dirfd, "");
  const int copy = ::openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = copy < 0 ? nullptr : ::fdopendir(copy);
  if (stream == nullptr) throw_errno("read the directory {}", quoted(prefix));
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  ::closedir(stream);
  std::sort(names.begin(), names.end());
  for (const auto& name : names) add(dirfd, name.c_str(), prefix + name, same_mount);
}

void TarWriter::finish() {
  static constexpr char kZeros[kBlock * 2] = {};
  write({kZeros, sizeof kZeros});
}

}  // namespace kelp::engine
