#include "engine/file_stream.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/owned.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {

namespace {

struct Header {
  char kind = 0;
  std::uint32_t mode = 0, uid = 0, gid = 0, name_length = 0, text_length = 0;
  std::int64_t mtime_seconds = 0, mtime_nanos = 0;
};

constexpr size_t kBlock = 256 * 1024;
constexpr std::uint32_t kMaxName = NAME_MAX;
constexpr std::uint32_t kMaxText = 64 * 1024;

// ---- sender

class Sender {
 public:
  explicit Sender(int out, const SendOptions& options = {}) : out_(out), options_(options), block_(kBlock) {}

  void top(int root_fd, const std::string& path) {
    // "dir/" follows a link, as the trailing slash does for the kernel; "link" itself is resolved too: cp of a link
    // named on the command line copies what it points to.
    const int flags = O_PATH;
    Fd fd = root_fd < 0 ? Fd(::open(path.c_str(), flags | O_CLOEXEC)) : sys::try_open_in_root(root_fd, path, flags);
    if (!fd) throw_errno("{}", path);
    struct stat info {};
    if (::fstat(fd.get(), &info) < 0) throw_errno("stat {}", path);
    const std::string clean = sys::clean_path(path);
    std::string name = clean.substr(clean.rfind('/') + 1);
    const bool contents = path == "." || ends_with(path, "/.") || name.empty() || name == "." || name == "..";
    record('T', info, name.empty() || name == "." || name == ".." ? "root" : name, contents ? "." : "");
    if (S_ISDIR(info.st_mode)) {
      const Fd dir(::openat(fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!dir) throw_errno("open {}", path);
      entries(dir.get());
      record('U', info, "", "");
    } else if (S_ISREG(info.st_mode)) {
      // By its path again: /proc/self does not exist in a container's mount namespace for us, who are not in its PID
      // namespace.
      constexpr int kRead = O_RDONLY | O_NONBLOCK;
      const Fd file =
          root_fd < 0 ? Fd(::open(path.c_str(), kRead | O_CLOEXEC)) : sys::try_open_in_root(root_fd, path, kRead);
      if (!file || ::fstat(file.get(), &info) < 0) throw_errno("open {}", path);
      if (!S_ISREG(info.st_mode)) throw_error("{}: it has just become something else than a file", path);
      record('F', info, name, "");
      data(file.get(), name);
    } else {
      throw_error("{}: neither a file nor a directory", path);
    }
    record('E', info, "", "");
  }

  void error(const std::string& text) noexcept {
    try {
      record('X', {}, "", text.substr(0, kMaxText));
    } catch (const Error&) {  // the receiver is gone; it has its own error
    }
  }

 private:
  void record(char kind, const struct stat& info, const std::string& name, const std::string& text) {
    Header header;
    header.kind = kind;
    header.mode = info.st_mode;
    header.uid = options_.uid.value_or(info.st_uid);
    header.gid = options_.gid.value_or(info.st_gid);
    header.mtime_seconds = info.st_mtim.tv_sec;
    header.mtime_nanos = info.st_mtim.tv_nsec;
    header.name_length = static_cast<std::uint32_t>(name.size());
    header.text_length = static_cast<std::uint32_t>(text.size());
    std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
    bytes += name;
    bytes += text;
    sys::write_all(out_, bytes, "the copy's stream");
  }

  void data(int fd, const std::string& name) {
    for (;;) {
      const ssize_t got = ::read(fd, block_.data(), block_.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_errno("read {}", printable(name));
      const auto length = static_cast<std::uint32_t>(got);
      sys::write_all(out_, {reinterpret_cast<const char*>(&length), sizeof length}, "the copy's stream");
      if (got == 0) return;
      sys::write_all(out_, {block_.data(), static_cast<size_t>(got)}, "the copy's stream");
    }
  }

  void entries(int dirfd) {
    Fd again(::openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(again ? ::fdopendir(again.get()) : nullptr, ::closedir);
    if (!dir) throw_errno("read a directory");
    (void)again.release();
    while (const dirent* entry = ::readdir(dir.get()))
      if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) one(dirfd, entry->d_name);
  }

  void one(int dirfd, const char* name) {
    struct stat info {};
    if (::fstatat(dirfd, name, &info, AT_SYMLINK_NOFOLLOW) < 0) {
      if (errno == ENOENT) return;  // a live tree
      throw_errno("stat {}", printable(name));
    }
    switch (info.st_mode & S_IFMT) {
      case S_IFDIR: {
        const Fd dir(::openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!dir) throw_errno("open {}", printable(name));
        record('D', info, name, "");
        entries(dir.get());
        record('U', info, "", "");
        break;
      }
      case S_IFREG: {
        std::string number;
        if (info.st_nlink > 1) {
          const auto [known, fresh] = links_.try_emplace({info.st_dev, info.st_ino}, links_.size());
          number = std::to_string(known->second);
          if (!fresh) return record('H', info, name, number);
        }
        const Fd file(::openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
        if (!file) throw_errno("open {}", printable(name));
        record('F', info, name, number);
        data(file.get(), name);
        break;
      }
      case S_IFLNK: {
        char target[PATH_MAX];
        const ssize_t length = ::readlinkat(dirfd, name, target, sizeof target);
        if (length < 0) throw_errno("read link {}", printable(name));
        record('L', info, name, std::string(target, static_cast<size_t>(length)));
        break;
      }
      case S_IFIFO:
        record('P', info, name, "");
        break;
      default:
        log::warn("{} is a device or a socket and is left out", printable(name));
    }
  }

  int out_;
  SendOptions options_;
  std::vector<char> block_;
  std::map<std::pair<dev_t, ino_t>, size_t> links_;  ///< files with several names, numbered
};

// ---- receiver

class Receiver {
 public:
  Receiver(int in, const ReceiveOptions& options) : in_(in), options_(options), block_(kBlock) {}

  void run(int root_fd, const std::string& path) {
    next();
    if (header_.kind != 'T') throw_error("the copy's stream begins wrongly");
    if (S_ISDIR(header_.mode))
      directory_source(root_fd, path);
    else
      file_source(root_fd, path);
    next();
    if (header_.kind != 'E') throw_error("the copy's stream ends wrongly");
  }

 private:
  void read_exactly(void* to, size_t count) {
    auto* at = static_cast<char*>(to);
    while (count > 0) {
      const ssize_t got = ::read(in_, at, count);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_errno("read the copy's stream");
      if (got == 0) throw_error("the sending side of the copy ended early");
      at += got;
      count -= static_cast<size_t>(got);
    }
  }

  void next() {
    read_exactly(&header_, sizeof header_);
    if (header_.name_length > kMaxName || header_.text_length > kMaxText) throw_error("the copy's stream is damaged");
    name_.resize(header_.name_length);
    text_.resize(header_.text_length);
    read_exactly(name_.data(), name_.size());
    read_exactly(text_.data(), text_.size());
    if (header_.kind == 'X') throw Error(text_);
    const bool bad =
        name_.find('/') != std::string::npos || name_.find('\0') != std::string::npos || name_ == "." || name_ == "..";
    if (bad) throw_error("the copy's stream names {}", quoted(name_));
  }

  static Fd open_at(int root_fd, const std::string& path, int flags) {
    if (root_fd < 0) return Fd(::open(path.c_str(), flags | O_CLOEXEC));
    return sys::try_open_in_root(root_fd, path, flags);
  }

  /// The directory that a path names, or whose entry it is to become. parent: opened; name: last component.
  struct Place {
    Fd parent;
    std::string name;
  };
  static Place parent_of(int root_fd, const std::string& path) {
    std::string bare = path;
    while (bare.size() > 1 && bare.back() == '/') bare.pop_back();
    const size_t slash = bare.rfind('/');
    Place place;
    place.name = bare.substr(slash == std::string::npos ? 0 : slash + 1);
    const std::string directory = slash == std::string::npos ? (root_fd < 0 ? "." : "/") : bare.substr(0, slash + 1);
    place.parent = open_at(root_fd, directory, O_RDONLY | O_DIRECTORY);
    if (!place.parent) throw_errno("{}", directory);
    if (place.name.empty() || place.name == "." || place.name == "..") throw SysError(path, ENOENT);
    return place;
  }

  void directory_source(int root_fd, const std::string& path) {
    const Header top = header_;
    const std::string name = name_;
    const bool contents = text_ == ".";
    const Fd existing = open_at(root_fd, path, O_PATH);
    struct stat info {};
    if (existing && ::fstat(existing.get(), &info) == 0 && S_ISDIR(info.st_mode)) {
      const Fd into = open_at(root_fd, path, O_RDONLY | O_DIRECTORY);
      if (!into) throw_errno("open {}", path);
      if (contents)
        fill(into.get());
      else
        fill(make_directory(into.get(), name).get(), &top);
      return;
    }
    if (existing && !options_.overwrite) throw_error("{}: cannot copy a directory over a file", path);
    const Place place = parent_of(root_fd, path);
    if (existing) ::unlinkat(place.parent.get(), place.name.c_str(), 0);
    fill(make_directory(place.parent.get(), place.name).get(), &top);
  }

  void file_source(int root_fd, const std::string& path) {
    const std::string name = name_;
    next();
    if (header_.kind != 'F') throw_error("the copy's stream is damaged");
    const Fd existing = open_at(root_fd, path, O_PATH);
    struct stat info {};
    if (existing && ::fstat(existing.get(), &info) == 0 && S_ISDIR(info.st_mode)) {
      const Fd into = open_at(root_fd, path, O_RDONLY | O_DIRECTORY);
      if (!into) throw_errno("open {}", path);
      make_file(into.get(), name);
      return;
    }
    if (!existing && ends_with(path, "/")) throw_error("{}: the directory does not exist", path);
    if (existing && S_ISREG(info.st_mode)) {
      // Written through, as cp does: links and mounts (/etc/hosts is one) stay what they are.
      const Fd file = open_at(root_fd, path, O_WRONLY | O_TRUNC);
      if (!file) throw_errno("open {}", path);
      const Header header = header_;
      data(file.get());
      attributes(file.get(), header);
      return;
    }
    const Place place = parent_of(root_fd, path);
    make_file(place.parent.get(), place.name);
  }

  Fd make_directory(int parent, const std::string& name) {
    if (::mkdirat(parent, name.c_str(), 0700) < 0) {
      if (errno != EEXIST) throw_errno("make directory {}", printable(name));
      struct stat info {};
      if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(info.st_mode)) {
        if (!options_.overwrite) throw_error("{}: cannot copy a directory over a file", printable(name));
        if (::unlinkat(parent, name.c_str(), 0) < 0 || ::mkdirat(parent, name.c_str(), 0700) < 0)
          throw_errno("replace {}", printable(name));
      }
    }
    Fd dir(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!dir) throw_errno("open {}", printable(name));
    return dir;
  }

  struct Level {
    Fd fd;
    Header header;
    std::string name;
  };
  static std::string path_of(const std::vector<Level>& levels) {
    std::string path;
    for (const Level& level : levels) path += level.name + "/";
    return path;
  }

  /// Entries up to the matching 'U'. top: attributes for the directory itself, given last.
  void fill(int top_fd, const Header* top = nullptr) {
    std::vector<Level> levels;
    for (;;) {
      next();
      const int at = levels.empty() ? top_fd : levels.back().fd.get();
      switch (header_.kind) {
        case 'D': {
          const Header header = header_;
          levels.push_back({make_directory(at, name_), header, name_});
          break;
        }
        case 'U':
          if (levels.empty()) {
            if (top != nullptr) attributes(top_fd, *top);
            return;
          }
          attributes(levels.back().fd.get(), levels.back().header);
          levels.pop_back();
          break;
        case 'F':
          make_named_file(top_fd, at, path_of(levels));
          break;
        case 'H':
          make_hard_link(top_fd, at);
          break;
        case 'L':
          make_link(at);
          break;
        case 'P':
          make_fifo(at);
          break;
        default:
          throw_error("the copy's stream is damaged");
      }
    }
  }

  void clear(int parent, const std::string& name) const {
    struct stat info {};
    if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) return;
    if (S_ISDIR(info.st_mode)) {
      if (!options_.overwrite) throw_error("{}: cannot copy a file over a directory", printable(name));
      sys::remove_tree_at(parent, name.c_str());
    } else if (::unlinkat(parent, name.c_str(), 0) < 0) {
      throw_errno("replace {}", printable(name));
    }
  }

  /// A file that may have more names. Where it stands is kept as a path, since there may be more of them than a process
  /// may have open files.
  void make_named_file(int top_fd, int parent, const std::string& directory) {
    const std::string number = text_;
    const Fd file = make_file(parent, name_);
    struct stat info {};
    if (number.empty()) return;
    if (::fstat(file.get(), &info) < 0) throw_errno("stat {}", printable(name_));
    named_[number] = {top_fd, directory, name_, info.st_dev, info.st_ino};
  }

  void make_hard_link(int top_fd, int parent) {
    const auto found = named_.find(text_);
    if (found == named_.end() || found->second.top_fd != top_fd) throw_error("the copy's stream is damaged");
    const Named& first = found->second;
    clear(parent, name_);
    // Others may write in the target, too: no link on the way to the first name leads to another file.
    const Fd directory = sys::open_beneath(top_fd, "./" + first.directory, O_RDONLY | O_DIRECTORY);
    if (::linkat(directory.get(), first.name.c_str(), parent, name_.c_str(), 0) < 0) {
      // File systems without hard links, and what is mounted within the target: another file then.
      if (errno != EXDEV && errno != EPERM && errno != EMLINK && errno != EOPNOTSUPP)
        throw_errno("make {} another name of {}", printable(name_), printable(first.directory + first.name));
      sys::copy_entry(directory.get(), first.name.c_str(), parent, name_.c_str());
      return;
    }
    struct stat info {};
    if (::fstatat(parent, name_.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && info.st_dev == first.device &&
        info.st_ino == first.inode)
      return;
    ::unlinkat(parent, name_.c_str(), 0);
    throw_error("{} was replaced while it was copied", printable(first.directory + first.name));
  }

  Fd make_file(int parent, const std::string& name) {
    const Header header = header_;
    clear(parent, name);
    Fd file(::openat(parent, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file) throw_errno("create {}", printable(name));
    data(file.get());
    attributes(file.get(), header);
    return file;
  }

  void data(int fd) {
    for (;;) {
      std::uint32_t length = 0;
      read_exactly(&length, sizeof length);
      if (length == 0) return;
      if (length > block_.size()) throw_error("the copy's stream is damaged");
      read_exactly(block_.data(), length);
      sys::write_all(fd, {block_.data(), length}, "a copied file");
    }
  }

  void make_link(int parent) {
    clear(parent, name_);
    if (::symlinkat(text_.c_str(), parent, name_.c_str()) < 0) throw_errno("make link {}", printable(name_));
    const auto [uid, gid] = owner(header_);
    if (uid != kNobody && ::fchownat(parent, name_.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
      throw_errno("change owner of {}", printable(name_));
  }

  void make_fifo(int parent) {
    clear(parent, name_);
    if (::mkfifoat(parent, name_.c_str(), header_.mode & 0777) < 0) throw_errno("make fifo {}", printable(name_));
    const auto [uid, gid] = owner(header_);
    if (uid != kNobody && ::fchownat(parent, name_.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
      throw_errno("change owner of {}", printable(name_));
  }

  static constexpr std::uint32_t kNobody = UINT32_MAX;
  static constexpr std::uint32_t kOverflowId = 65534;  ///< what the kernel shows of ids that are not mapped
  [[nodiscard]] std::pair<std::uint32_t, std::uint32_t> owner(const Header& header) const {
    if (options_.uid) return {*options_.uid, options_.gid.value_or(*options_.uid)};
    if (options_.keep_owners && options_.outside != nullptr) {
      std::uint32_t uid = kOverflowId, gid = kOverflowId;
      sys::map_in(options_.outside->uids, header.uid, uid);
      sys::map_in(options_.outside->gids, header.gid, gid);
      return {uid, gid};
    }
    if (options_.keep_owners) return {header.uid, header.gid};
    return {kNobody, kNobody};
  }

  void attributes(int fd, const Header& header) const {
    const auto [uid, gid] = owner(header);
    if (uid != kNobody && ::fchown(fd, uid, gid) < 0) throw_errno("change owner of a copied file to {}:{}", uid, gid);
    if (::fchmod(fd, header.mode & 07777) < 0) throw_errno("change mode of a copied file");
    const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_NOW},
                               {.tv_sec = header.mtime_seconds, .tv_nsec = header.mtime_nanos}};
    ::futimens(fd, times);
  }

  int in_;
  const ReceiveOptions& options_;
  std::vector<char> block_;
  Header header_;
  std::string name_, text_;
  /// The first name of a file that has several, below the directory that is filled.
  struct Named {
    int top_fd = -1;
    std::string directory, name;
    dev_t device = 0;
    ino_t inode = 0;
  };
  std::map<std::string, Named> named_;
};

}  // namespace

void send_files(int out_fd, int root_fd, const std::string& path, const SendOptions& options) noexcept {
  Sender sender(out_fd, options);
  try {
    sender.top(root_fd, path);
  } catch (const std::exception& error) {
    sender.error(error.what());
  }
}

void send_error(int out_fd, const std::string& text) noexcept { Sender(out_fd).error(text); }

void receive_files(int in_fd, int root_fd, const std::string& path, const ReceiveOptions& options) {
  Receiver(in_fd, options).run(root_fd, path);
}

}  // namespace kelp::engine
