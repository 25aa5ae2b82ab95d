#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest_name.h"
#include "image/auth.h"
#include "image/http.h"
#include "image/policy.h"

namespace kelp::image {

struct RegistryOptions {
  AuthSources auth;
  std::string cert_dir;
  std::optional<bool> tls_verify;  ///< --tls-verify; wins over registries.conf
  /// What a token is asked for ("repository:team/app:pull,push", …); empty = what the registry's challenge names.
  std::vector<std::string> scopes;
};

/// A blob that is to be in the repository.
struct BlobUpload {
  DigestName digest;
  bool asked = false;  ///< has_blob() has said that it is not there
  std::uint64_t size = 0;
  int fd = -1;                         ///< its bytes, from the start of the file; borrowed
  std::vector<std::string> elsewhere;  ///< other repositories of this registry that may have it
  std::function<void(std::uint64_t sent)> progress;
  std::stop_token stop;
};
enum class UploadOutcome { existed, mounted, uploaded };

/// A manifest or index as a registry gave it, its digest checked.
struct FetchedManifest {
  std::string text, media_type;
  DigestName digest;
};

/// One repository of one registry, over the distribution API version 2.
///
/// The first call settles how to talk (HTTPS, or plain HTTP where the registry is declared insecure) and, when asked,
/// who we are: basic or bearer tokens, which are kept and renewed. Construct and make the first call in a process
/// with one thread; afterwards blob() may be called from many.
///
/// source: OCI distribution-spec v1.1; distribution/spec/auth/token.md
class Registry {
 public:
  Registry(Http& http, PullSource source, RegistryOptions options);

  [[nodiscard]] const PullSource& source() const noexcept { return source_; }

  /// The answer to GET /v2/ without credentials: 200 or 401 where a registry listens.
  HttpResponse greet();

  /// reference  a tag or a digest; the answer to a digest is checked against it
  /// returns    nullopt when the registry knows no such manifest
  /// throws     Error: not reachable, not allowed, larger than 4 MiB, not what its digest says
  std::optional<FetchedManifest> manifest(const std::string& reference);

  /// Streams a blob from byte `offset` on; the caller hashes. `bound` = its full size as the manifest says: more is an
  /// error, less is the caller's to see.
  void blob(const DigestName& digest, std::uint64_t offset, std::uint64_t bound, const BodySink& sink,
            std::stop_token stop = {});

  /// A small blob (image configuration) as a whole, checked against its digest.
  std::string small_blob(const DigestName& digest, std::uint64_t size, size_t max);

  /// All tags of the repository; nullopt when there is no such repository.
  std::optional<std::vector<std::string>> tags();

  /// Logs in (or not) and sees whether the registry takes it. throws Error when it does not.
  void check_access();

  /// Any path below the registry's root ("/v1/search?…", "/v2/_catalog"), whatever its status; nullopt when the
  /// connection could be made but the path is not there (404).
  std::optional<HttpResponse> get(const std::string& path);

  // registry_push.cc

  /// Whether the repository has the blob.
  bool has_blob(const DigestName& digest);
  /// Sees to it that the repository has the blob: it may be there, it may be taken from another repository of the same
  /// registry, else it is sent. In one piece first; a server or proxy that refuses bodies of that size (413), or a
  /// connection that breaks, gets it in pieces from where it stopped.
  UploadOutcome put_blob(const BlobUpload& upload);
  /// Publishes a manifest or index under a tag or its digest.
  void put_manifest(const std::string& reference, const std::string& text, const std::string& media_type);
  /// Whether the repository has this very manifest (by digest).
  bool has_manifest(const DigestName& digest);

 private:
  HttpResponse ask(HttpRequest request);
  void connect();
  std::string authorization();
  /// Answers a 401; false when there is nothing better to offer than what was sent.
  bool authenticate(const HttpResponse& response, const std::string& sent);
  std::string fetch_token(const Challenge& challenge, const std::optional<Credentials>& credentials);
  [[nodiscard]] std::string url(const std::string& path) const {
    return base_ + "/v2/" + source_.name.repository + path;
  }
  [[noreturn]] void throw_status(const HttpResponse& response, const std::string& what) const;
  std::string start_upload(const BlobUpload& upload, bool& mounted);
  bool try_whole(const BlobUpload& upload, const std::string& place);
  void send_pieces(const BlobUpload& upload, std::string place);
  HttpResponse ask_at(HttpRequest request);
  HttpResponse ask_elsewhere(HttpRequest request);

  Http& http_;
  PullSource source_;
  RegistryOptions options_;
  TlsSettings tls_;
  bool insecure_;
  std::string base_;  ///< scheme://host, "" before connect()
  std::mutex mutex_;
  std::string authorization_;
  std::optional<std::optional<Credentials>> credentials_;  ///< looked up at the first 401
};

/// The reason in an error answer of a registry ({"errors":[{"code","message"}]}), fit to print; "" when it has none.
std::string registry_error_text(std::string_view body);

}  // namespace kelp::image
