#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace kelp::image {

/// No answer came: the host was not found or not reached, TLS failed, or the transfer broke and could not be resumed.
/// An answer with an error status is no HttpError.
class HttpError : public Error {
 public:
  enum class Kind {
    resolve,
    connect,
    tls,
    plain_http /* a TLS greeting was answered in plain HTTP */,
    broken,
    refused
  };
  HttpError(Kind kind, std::string message) : Error(std::move(message)), kind_(kind) {}
  [[nodiscard]] Kind kind() const noexcept { return kind_; }

 private:
  Kind kind_;
};

/// The work was given up because another part of it failed.
class Cancelled : public Error {
 public:
  Cancelled() : Error("cancelled") {}
};

struct TlsSettings {
  bool verify = true;
  std::string ca_pem;                   ///< certificates trusted besides the system's, PEM text
  std::string client_cert, client_key;  ///< PEM files, "" = none
};

struct HttpResponse {
  long status = 0;
  std::string body;                                          ///< empty when a sink took it
  std::string url;                                           ///< after redirects
  std::uint64_t delivered = 0;                               ///< bytes that the sink got, over all attempts
  std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case, of the last answer

  /// First value of a header (name in lower case); nullopt when absent.
  [[nodiscard]] std::optional<std::string> header(std::string_view name) const;
};

/// Takes the bytes of a body with status 200 or 206; what it throws ends the transfer and reaches the caller of send().
using BodySink = std::function<void(std::span<const std::byte>)>;

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers;  ///< "Name: value"
  std::string authorization;         ///< value of the header, "" = none; never sent to another origin by a redirect
  std::string body;                  ///< POST and PUT
  int upload_fd = -1;                ///< body from this file instead; borrowed
  std::uint64_t upload_offset = 0;   ///< where in the file it begins
  std::uint64_t upload_size = 0;     ///< bytes of it
  std::function<void(std::uint64_t sent)> upload_progress;  ///< bytes of this body that went out; may be empty
  bool once = false;  ///< the caller tries again himself (an upload, which has a state at the other end)
  std::uint64_t max_body = 4u << 20;  ///< bytes of an answer that is kept in memory
  BodySink sink;                      ///< body of a successful answer goes here; max_body does not count
  std::function<void(const HttpResponse&)>
      answered;              ///< before the sink's first byte: status and headers; may be empty
  std::uint64_t offset = 0;  ///< with sink: the sink has this many bytes already, ask for the rest
  TlsSettings tls;
  std::stop_token stop;
};

struct HttpOptions {
  unsigned retries = 3;                                 ///< after a first attempt that failed
  std::optional<std::chrono::nanoseconds> retry_delay;  ///< fixed; else 0.3 s, doubled each time
  std::chrono::seconds connect_timeout{20};
  std::chrono::seconds stall_timeout{60};  ///< a transfer without a byte for so long is broken
};

/// HTTP client for many threads: each call takes a connection that stands idle. Failed connections, 429 (Retry-After is
/// honoured) and 5xx are tried again with growing pauses; a body that breaks off is resumed where it broke (Range).
/// Redirects are followed here, by hand: credentials and client certificates stay with the first origin, and nothing
/// verified is redirected to plain HTTP. Proxies come from the environment (HTTPS_PROXY, NO_PROXY…).
class Http {
 public:
  explicit Http(HttpOptions options);
  ~Http();
  Http(const Http&) = delete;
  Http& operator=(const Http&) = delete;

  /// throws  HttpError, Cancelled, or what the sink threw
  HttpResponse send(const HttpRequest& request);

  [[nodiscard]] const HttpOptions& options() const noexcept { return options_; }
  /// For callers with requests of the kind `once`: waits as send() would after so many failures (from 1) and this
  /// answer (an empty one: none came). throws Cancelled
  void pause(unsigned failures, const HttpResponse& answer, const std::stop_token& stop = {}) const;
  /// true for failures and statuses that may pass: a later try is worth it.
  static bool may_pass(const HttpError& error) noexcept {
    return error.kind() != HttpError::Kind::tls && error.kind() != HttpError::Kind::plain_http &&
           error.kind() != HttpError::Kind::refused;
  }
  static bool may_pass(long status) noexcept {
    return status == 429 || status == 408 || status == 500 || status == 502 || status == 503 || status == 504;
  }

 private:
  struct Shared;
  HttpOptions options_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace kelp::image
