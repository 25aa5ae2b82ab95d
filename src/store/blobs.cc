#include "store/blobs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <random>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "sys/directory.h"
#include "sys/lock.h"
#include "sys/safe_path.h"

namespace kelp::store {

namespace {

constexpr std::uint64_t kWritebackStep = 8 << 20;
constexpr std::uint64_t kFlushStep = 32 << 20;

/// The store keeps sha256 only: its directory is blobs/sha256.
void check_algorithm(const DigestName& digest) {
  if (digest.algorithm() != "sha256") {
    throw_error("digest {}: only sha256 is kept in the store", digest.str());
  }
}

Fd open_making_directory(const std::string& directory, const std::string& path, int flags) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC, 0644));
  if (!fd && errno == ENOENT && (flags & O_CREAT) != 0) {
    sys::mkdirs(directory, 0700);
    fd = Fd(::open(path.c_str(), flags | O_CLOEXEC, 0644));
  }
  if (!fd) throw_errno("open {}", path);
  return fd;
}

std::string random_name() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

}  // namespace

std::optional<std::uint64_t> blob_size(const Layout& layout, const DigestName& digest) {
  check_algorithm(digest);
  struct stat info {};
  if (::stat(layout.blob(digest.hex()).c_str(), &info) == 0) return static_cast<std::uint64_t>(info.st_size);
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  throw_errno("look for the blob {}", digest.str());
}

Fd open_blob(const Layout& layout, const DigestName& digest) {
  check_algorithm(digest);
  Fd fd(::open(layout.blob(digest.hex()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    SysError error("open the blob " + digest.str(), errno);
    if (error.code() == ENOENT) error.with_hint("the image is damaged: pull or load it again");
    throw error;
  }
  return fd;
}

std::string read_blob(const Layout& layout, const DigestName& digest, size_t max) {
  const Fd fd = open_blob(layout, digest);
  return sys::read_rest(fd.get(), "the blob " + digest.str(), max);
}

std::vector<DigestName> list_blobs(const Layout& layout) {
  std::vector<DigestName> result;
  for (const std::string& name : sys::names_in(layout.blobs())) {
    if (is_full_id(name)) result.push_back(DigestName::sha256_hex(name));
  }
  return result;
}

BlobWriter::BlobWriter(const Layout& layout, const DigestName& digest)
    : blobs_(layout.blobs()), path_(layout.partial_downloads() + "/" + std::string(digest.hex())), keep_(true) {
  check_algorithm(digest);
  for (;;) {
    if (has_blob(layout, digest)) {
      complete_ = true;
      fd_.reset();
      return;
    }
    fd_ = open_making_directory(layout.partial_downloads(), path_, O_RDWR | O_CREAT);
    while (::flock(fd_.get(), LOCK_EX) < 0) {
      if (errno != EINTR) throw_errno("lock {}", path_);
    }
    // The holder before us may have renamed this very file into the store, or thrown it away.
    struct stat mine {};
    struct stat named {};
    if (::fstat(fd_.get(), &mine) < 0) throw_errno("inspect {}", path_);
    if (::stat(path_.c_str(), &named) == 0 && named.st_ino == mine.st_ino && named.st_dev == mine.st_dev) {
      offset_ = static_cast<std::uint64_t>(mine.st_size);
      return;
    }
  }
}

BlobWriter::BlobWriter(const Layout& layout) : blobs_(layout.blobs()) {
  struct stat info {};
  do {
    path_ = layout.partial_downloads() + "/new-" + random_name();
    fd_ = open_making_directory(layout.partial_downloads(), path_, O_RDWR | O_CREAT | O_EXCL);
    while (::flock(fd_.get(), LOCK_EX) < 0) {
      if (errno != EINTR) throw_errno("lock {}", path_);
    }
    if (::fstat(fd_.get(), &info) < 0) throw_errno("inspect {}", path_);
  } while (info.st_nlink == 0);  // a sweep came before the lock and took it for a dead one's
}

BlobWriter::BlobWriter(BlobWriter&& other) noexcept
    : blobs_(std::move(other.blobs_)),
      path_(std::exchange(other.path_, {})),
      fd_(std::move(other.fd_)),
      flush_(std::move(other.flush_)),
      offset_(other.offset_),
      synced_(other.synced_),
      keep_(other.keep_),
      complete_(other.complete_) {}

BlobWriter::~BlobWriter() {
  if (flush_) flush_->thread.join();
  if (fd_ && !path_.empty() && (!keep_ || offset_ == 0)) ::unlink(path_.c_str());
}

void BlobWriter::write(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  synced_ = false;
  const std::uint64_t before = offset_ / kWritebackStep * kWritebackStep;
  while (size > 0) {
    const ssize_t written = ::pwrite(fd_.get(), bytes, size, static_cast<off_t>(offset_));
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_errno("write {}", path_);
    }
    bytes += written;
    size -= static_cast<size_t>(written);
    offset_ += static_cast<std::uint64_t>(written);
  }
  const std::uint64_t now = offset_ / kWritebackStep * kWritebackStep;
  if (now > before) {  // starts the disk while the network goes on: the fsync at the end finds little left
    ::sync_file_range(fd_.get(), static_cast<off_t>(before), static_cast<off_t>(now - before), SYNC_FILE_RANGE_WRITE);
    if (now / kFlushStep > before / kFlushStep) flush_behind();
  }
}

void BlobWriter::flush_behind() {
  if (flush_ && !flush_->done) return;
  end_flush();
  auto flush = std::make_unique<Flush>();
  try {
    flush->thread = std::thread([flush = flush.get(), fd = fd_.get()] {
      flush->error = ::fdatasync(fd) < 0 ? errno : 0;
      flush->done = true;
    });
  } catch (const std::system_error&) {  // no thread to be had: sync() does all of it
    return;
  }
  flush_ = std::move(flush);
}

/// An error of the disk is reported once per descriptor: what the thread was told must not get lost.
void BlobWriter::end_flush() {
  if (!flush_) return;
  flush_->thread.join();
  const int error = std::exchange(flush_, nullptr)->error;
  if (error != 0) throw SysError("sync " + path_, error);
}

void BlobWriter::restart() {
  if (::ftruncate(fd_.get(), 0) < 0) throw_errno("truncate {}", path_);
  offset_ = 0;
  synced_ = false;
}

void BlobWriter::sync() {
  if (complete_ || synced_) return;
  end_flush();
  if (::fchmod(fd_.get(), 0644) < 0) throw_errno("set the mode of {}", path_);
  if (::fsync(fd_.get()) < 0) throw_errno("sync {}", path_);
  synced_ = true;
}

void BlobWriter::publish(const DigestName& digest) {
  check_algorithm(digest);
  if (complete_) return;
  sync();
  const std::string target = blobs_ + "/" + std::string(digest.hex());
  if (::rename(path_.c_str(), target.c_str()) < 0) {
    if (errno != ENOENT) throw_errno("publish {}", target);
    sys::mkdirs(blobs_, 0700);
    if (::rename(path_.c_str(), target.c_str()) < 0) throw_errno("publish {}", target);
  }
  path_.clear();
  fd_.reset();
  complete_ = true;
}

void put_blob(const Layout& layout, const DigestName& digest, std::string_view content) {
  BlobWriter writer(layout, digest);
  if (writer.complete()) return;
  if (writer.offset() != 0) writer.restart();
  writer.write(content);
  writer.publish(digest);
}

void remove_blob(const Layout& layout, const DigestName& digest) {
  check_algorithm(digest);
  if (::unlink(layout.blob(digest.hex()).c_str()) < 0 && errno != ENOENT) {
    throw_errno("remove the blob {}", digest.str());
  }
}

}  // namespace kelp::store
