// Cache of finished filters: building one costs 1.5–20 ms, reading one some microseconds.
//
// A file is "KELPBPF1", sixteen bytes checksum of the rest, and the
// instructions. It is published by rename, so readers see whole files; a damaged one (checksum) is as good as missing.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "kelp_config.h"
#include "runtime/seccomp.h"

namespace kelp::runtime {
namespace {

constexpr std::string_view kMagic = "KELPBPF1";
constexpr size_t kMaxFilterBytes = 4096 * 8;

/// 128 bits from two FNV-1a runs with different seeds: a key among one user's own few profiles, no defence against
/// forgery (who can write the cache can write the profile).
struct Hash {
  std::uint64_t a = 0xcbf29ce484222325ULL, b = 0x84222325cbf29ce4ULL;
  void add(std::string_view text) {
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      a = (a ^ byte) * 0x100000001b3ULL;
      b = (b ^ (byte + 0x5bU)) * 0x100000001b3ULL;
      b ^= b >> 29;
    }
    a = (a ^ 0xffU) * 0x100000001b3ULL;  // end of field
    b = (b ^ 0x1ffU) * 0x100000001b3ULL;
  }
  void add(std::uint64_t number) { add(std::string_view(reinterpret_cast<const char*>(&number), sizeof number)); }
};

std::string key_of(const spec::Seccomp& profile) {
  static const std::string machine = [] {
    utsname name{};
    ::uname(&name);
    return std::string(name.machine);
  }();
  Hash hash;
  hash.add(machine);
  hash.add(seccomp_library_version());
  hash.add(KELP_VERSION);
  hash.add(static_cast<std::uint64_t>(profile.default_action));
  hash.add(profile.default_errno_ret.value_or(~0U));
  for (const std::string& arch : profile.architectures) hash.add(arch);
  hash.add("rules");
  for (const spec::SeccompRule& rule : profile.syscalls) {
    for (const std::string& name : rule.names) hash.add(name);
    hash.add(static_cast<std::uint64_t>(rule.action));
    hash.add(rule.errno_ret.value_or(~0U));
    for (const spec::SeccompArg& arg : rule.args) {
      hash.add(arg.index);
      hash.add(arg.value);
      hash.add(arg.value_two);
      hash.add(static_cast<std::uint64_t>(arg.op));
    }
    hash.add("end");
  }
  return fmt::format("{:016x}{:016x}", hash.a, hash.b);
}

std::string checksum_of(std::string_view bpf) {
  Hash hash;
  hash.add(bpf);
  std::string bytes(2 * sizeof hash.a, '\0');
  std::memcpy(bytes.data(), &hash.a, sizeof hash.a);
  std::memcpy(bytes.data() + sizeof hash.a, &hash.b, sizeof hash.b);
  return bytes;
}

/// The filter of a cache file; "" when it is missing or damaged.
std::string read_cached(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return "";
  std::string content(kMagic.size() + 16 + kMaxFilterBytes + 1, '\0');
  const ssize_t n = ::read(file.get(), content.data(), content.size());
  if (n <= 0) return "";
  content.resize(static_cast<size_t>(n));
  const size_t start = kMagic.size() + 16;
  if (content.size() <= start || content.size() > start + kMaxFilterBytes || (content.size() - start) % 8 != 0 ||
      content.compare(0, kMagic.size(), kMagic) != 0)
    return "";
  std::string bpf = content.substr(start);
  if (content.compare(kMagic.size(), 16, checksum_of(bpf)) != 0) return "";
  return bpf;
}

bool make_directories(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1))
    ::mkdir(path.substr(0, slash).c_str(), 0755);
  return ::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST;
}

/// A full disk or a read-only home must not stop a start: failures are left alone.
void publish(const std::string& dir, const std::string& path, const std::string& bpf) {
  if (!make_directories(dir)) {
    log::debug("seccomp cache {}: {}", dir, errno_text(errno));
    return;
  }
  const std::string temporary = fmt::format("{}.{}", path, ::getpid());
  {
    const Fd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) {
      log::debug("seccomp cache {}: {}", temporary, errno_text(errno));
      return;
    }
    const std::string content = std::string(kMagic) + checksum_of(bpf) + bpf;
    if (::write(file.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) {
      ::unlink(temporary.c_str());
      return;
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) < 0) ::unlink(temporary.c_str());
}

}  // namespace

std::string seccomp_cache_dir() {
  const auto variable = [](const char* name) {
    const char* value = ::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  if (const std::string dir = variable("KELP_SECCOMP_CACHE"); !dir.empty()) return dir;
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty() && cache[0] == '/')
    return cache + "/kelp/seccomp";
  if (const std::string home = variable("HOME"); !home.empty() && home[0] == '/') return home + "/.cache/kelp/seccomp";
  return "";
}

SeccompProgram cached_seccomp(const spec::Seccomp& profile, const std::string& cache_dir) {
  if (cache_dir.empty()) return compile_seccomp(profile);
  SeccompProgram program = describe_seccomp(profile);
  const std::string path = cache_dir + "/" + key_of(profile) + ".bpf";
  program.bpf = read_cached(path);
  if (!program.bpf.empty()) return program;
  program = compile_seccomp(profile);
  publish(cache_dir, path, program.bpf);
  return program;
}

}  // namespace kelp::runtime
