#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/digest_name.h"
#include "base/owned.h"
#include "store/layout.h"

namespace kelp::store {

/// Size of a stored blob; nullopt when it is not there. No lock: blobs appear complete, by rename.
std::optional<std::uint64_t> blob_size(const Layout& layout, const DigestName& digest);
inline bool has_blob(const Layout& layout, const DigestName& digest) { return blob_size(layout, digest).has_value(); }

/// throws SysError naming the digest; `hint` says how to get it back when it is gone
Fd open_blob(const Layout& layout, const DigestName& digest);
/// The whole blob; throws Error when it is longer than max.
std::string read_blob(const Layout& layout, const DigestName& digest, size_t max);
/// All blobs on disk.
std::vector<DigestName> list_blobs(const Layout& layout);

/// One blob on its way into the store. Bytes go to a partial file; publish() syncs it and makes it visible under
/// its digest (the name itself is durable with the index entry that needs it: edit_index). The caller
/// hashes (image/digest): nothing is published that he has not checked.
///
/// With a digest known beforehand the partial file is named after it, locked (a second writer of the same
/// blob waits in the constructor) and kept when the writer is dropped, so that a download resumes at offset().
class BlobWriter {
 public:
  /// Waits for another process that writes the same blob; afterwards complete() may already be true.
  BlobWriter(const Layout& layout, const DigestName& digest);
  /// The digest is known only at the end; the file is removed when the writer is dropped.
  explicit BlobWriter(const Layout& layout);
  BlobWriter(BlobWriter&& other) noexcept;
  BlobWriter& operator=(BlobWriter&&) = delete;
  BlobWriter(const BlobWriter&) = delete;
  ~BlobWriter();

  /// The blob is in the store already: nothing to write.
  [[nodiscard]] bool complete() const noexcept { return complete_; }
  /// Bytes in the partial file; write() appends here.
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
  /// For re-reading what is there (pread), to feed the hash on resume.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Throws away what is there: the server cannot resume, or the digest was wrong.
  void restart();
  /// The bytes so far are on disk; publish() has less to wait for.
  void sync();
  /// sync, rename to blobs/sha256/<hex>. A blob that appeared meanwhile is fine.
  void publish(const DigestName& digest);

 private:
  /// A look ahead of sync(): a large blob goes to the disk, and through the disk's own cache, while the rest comes.
  struct Flush {
    std::thread thread;
    std::atomic<bool> done = false;
    int error = 0;  ///< errno; valid after the thread's end
  };
  void flush_behind();
  void end_flush();

  std::string blobs_, path_;
  Fd fd_;
  std::unique_ptr<Flush> flush_;
  std::uint64_t offset_ = 0;
  bool synced_ = false;
  bool keep_ = false, complete_ = false;
};

/// Small blobs (manifests, configs): write and publish in one go. The caller has hashed `content`.
void put_blob(const Layout& layout, const DigestName& digest, std::string_view content);
/// Gone already is fine.
void remove_blob(const Layout& layout, const DigestName& digest);

}  // namespace kelp::store
