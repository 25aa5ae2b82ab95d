#include "image/digest.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/error.h"

namespace kelp::image {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (state_->context == nullptr || EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) != 1) {
    throw_error("start a sha256: OpenSSL refused");
  }
}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::update(const void* data, size_t size) {
  if (EVP_DigestUpdate(state_->context, data, size) != 1) throw_error("sha256: OpenSSL refused");
  size_ += size;
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned length = 0;
  if (EVP_DigestFinal_ex(state_->context, bytes.data(), &length) != 1) throw_error("sha256: OpenSSL refused");
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(size_t{length} * 2);
  for (unsigned i = 0; i < length; ++i) {
    text += kDigits[bytes[i] >> 4U];
    text += kDigits[bytes[i] & 15U];
  }
  return text;
}

DigestName sha256_of(std::string_view text) {
  Sha256 hash;
  hash.update(text);
  return hash.digest();
}

DigestName sha256_of_file(int fd) {
  Sha256 hash;
  std::vector<char> buffer(256 * 1024);
  off_t offset = 0;
  for (;;) {
    const ssize_t got = ::pread(fd, buffer.data(), buffer.size(), offset);
    if (got < 0) {
      if (errno == EINTR) continue;
      throw_errno("read the file to be hashed");
    }
    if (got == 0) return hash.digest();
    hash.update(buffer.data(), static_cast<size_t>(got));
    offset += got;
  }
}

std::vector<std::string> chain_ids(const std::vector<std::string>& diff_ids) {
  std::vector<std::string> result;
  std::string above;
  for (const std::string& diff_id : diff_ids) {
    const DigestName checked = DigestName::require(diff_id);
    above = result.empty() ? checked.str() : sha256_of(above + " " + checked.str()).str();
    result.push_back(above.substr(above.find(':') + 1));
  }
  return result;
}

}  // namespace kelp::image
