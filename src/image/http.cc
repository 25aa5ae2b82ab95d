// The one user of libcurl. send() is the story: attempt, follow redirects, decide whether to try again; perform() is
// one request on one connection.
#include "image/http.h"

#include <curl/curl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"
#include "image/url.h"
#include "kelp_config.h"

namespace kelp::image {

namespace {

constexpr unsigned kMaxRedirects = 10;
constexpr std::chrono::seconds kMaxPause{30};
/// A resumed body that has grown by this much has earned a fresh count of attempts.
constexpr std::uint64_t kProgressResetsRetries = 256 << 10;
constexpr size_t kMaxHeaders = 200;
constexpr size_t kMaxErrorBody = 64 << 10;

struct HeaderList {
  curl_slist* list = nullptr;
  HeaderList() = default;
  HeaderList(const HeaderList&) = delete;
  HeaderList& operator=(const HeaderList&) = delete;
  ~HeaderList() { curl_slist_free_all(list); }
  void add(const std::string& line) { list = curl_slist_append(list, line.c_str()); }
};

/// One request under way; the callbacks of libcurl work on it.
struct Exchange {
  const HttpRequest* request = nullptr;
  CURL* curl = nullptr;
  HttpResponse response;
  std::uint64_t wanted_offset = 0;  ///< where the sink's next byte stands in the body
  std::uint64_t delivered = 0;      ///< bytes given to the sink in this exchange
  std::uint64_t skip = 0;           ///< bytes of the body that the sink has already (server ignored Range)
  std::uint64_t upload_at = 0;
  bool body_started = false;
  std::exception_ptr failure;  ///< thrown by the sink or by us; ends the transfer
};

bool is_success(long status) { return status >= 200 && status < 300; }

/// The position a 206 answer starts at, from "bytes 100-199/200".
std::optional<std::uint64_t> content_range_start(const HttpResponse& response) {
  const auto value = response.header("content-range");
  if (!value || !starts_with(*value, "bytes ")) return std::nullopt;
  const std::string from = value->substr(6, value->find('-') - 6);
  const auto number = to_int(from, 0);
  return number ? std::optional<std::uint64_t>(static_cast<std::uint64_t>(*number)) : std::nullopt;
}

void start_body(Exchange& exchange) {
  exchange.body_started = true;
  long status = 0;
  curl_easy_getinfo(exchange.curl, CURLINFO_RESPONSE_CODE, &status);
  exchange.response.status = status;
  const HttpRequest& request = *exchange.request;
  if (!request.sink) return;
  if (exchange.wanted_offset == 0) {
    if (request.answered && (status == 200 || status == 206)) request.answered(exchange.response);
    return;
  }
  if (status == 200) exchange.skip = exchange.wanted_offset;  // Range was ignored: the body begins at its start
  if (status == 206 && content_range_start(exchange.response) != exchange.wanted_offset) {
    throw_error("{}: the server answered a range that was not asked for", exchange.request->url);
  }
}

void take_body(Exchange& exchange, std::span<const std::byte> bytes) {
  const HttpRequest& request = *exchange.request;
  if (!exchange.body_started) start_body(exchange);
  const long status = exchange.response.status;
  if (request.sink && (status == 200 || status == 206)) {
    const size_t skipped = static_cast<size_t>(std::min<std::uint64_t>(exchange.skip, bytes.size()));
    exchange.skip -= skipped;
    bytes = bytes.subspan(skipped);
    if (bytes.empty()) return;
    request.sink(bytes);
    exchange.delivered += bytes.size();
    return;
  }
  std::string& body = exchange.response.body;
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  if (!is_success(status)) {  // the reason of an error: its beginning is enough
    body.append(text, std::min(bytes.size(), kMaxErrorBody - std::min(body.size(), kMaxErrorBody)));
    return;
  }
  if (body.size() + bytes.size() > request.max_body) {
    throw_error("{}: the answer is larger than {} bytes", request.url, request.max_body);
  }
  body.append(text, bytes.size());
}

size_t on_body(char* data, size_t size, size_t count, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  try {
    take_body(exchange, std::as_bytes(std::span(data, size * count)));
    return size * count;
  } catch (...) {
    exchange.failure = std::current_exception();
    return size * count == 0 ? 1 : 0;
  }
}

size_t on_header(char* data, size_t size, size_t count, void* user) {
  auto& response = static_cast<Exchange*>(user)->response;
  const std::string_view line = trim(std::string_view(data, size * count));
  if (starts_with(line, "HTTP/")) {
    response.headers.clear();  // a 100 Continue or a proxy's answer came before
  } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
    if (response.headers.size() >= kMaxHeaders) return 0;
    response.headers.emplace_back(to_lower(line.substr(0, colon)), trim(line.substr(colon + 1)));
  }
  return size * count;
}

size_t on_read(char* data, size_t size, size_t count, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  const HttpRequest& request = *exchange.request;
  const size_t room = static_cast<size_t>(
      std::min<std::uint64_t>(size * count, request.upload_size - std::min(exchange.upload_at, request.upload_size)));
  if (room == 0) return 0;
  const ssize_t got =
      ::pread(request.upload_fd, data, room, static_cast<off_t>(request.upload_offset + exchange.upload_at));
  if (got <= 0) return CURL_READFUNC_ABORT;
  exchange.upload_at += static_cast<std::uint64_t>(got);
  if (request.upload_progress) request.upload_progress(exchange.upload_at);
  return static_cast<size_t>(got);
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Exchange*>(user)->request->stop.stop_requested() ? 1 : 0;
}

std::string host_of(std::string_view url) {
  const std::string origin = url_origin(url);
  const size_t at = origin.find("://");
  return at == std::string::npos ? std::string(url) : origin.substr(at + 3);
}

/// The proxy's answer to CONNECT.
[[noreturn]] void throw_proxy(long status, const std::string& host) {
  const bool passes = Http::may_pass(status);
  HttpError error(passes ? HttpError::Kind::connect : HttpError::Kind::refused,
                  fmt::format("cannot connect to {}: the proxy answers with status {}", host, status));
  if (status == 407) error.with_hint("https_proxy=http://USER:PASSWORD@HOST:PORT, as the proxy asks for a password");
  throw error;
}

[[noreturn]] void throw_transport(CURLcode code, CURL* curl, const char* detail, const std::string& url) {
  const std::string host = host_of(url);
  std::string text = *detail != '\0' ? std::string(trim(detail)) : curl_easy_strerror(code);
  long tunnel = 0;
  curl_easy_getinfo(curl, CURLINFO_HTTP_CONNECTCODE, &tunnel);
  if (tunnel >= 300) throw_proxy(tunnel, host);
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      throw HttpError(HttpError::Kind::resolve, fmt::format("cannot find the host {}: {}", host, text));
    case CURLE_COULDNT_CONNECT: {
      long errnum = 0;
      curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &errnum);
      if (errnum != 0) text = errno_text(static_cast<int>(errnum));
      throw HttpError(HttpError::Kind::connect, fmt::format("cannot connect to {}: {}", host, text));
    }
    case CURLE_OPERATION_TIMEDOUT: {
      double connected = 0;
      curl_easy_getinfo(curl, CURLINFO_CONNECT_TIME, &connected);
      if (connected == 0) {
        throw HttpError(HttpError::Kind::connect, fmt::format("cannot connect to {}: timed out", host));
      }
      throw HttpError(HttpError::Kind::broken, fmt::format("{}: no data came for too long", host));
    }
    case CURLE_SSL_CONNECT_ERROR:
      if (text.find("wrong version number") != std::string::npos || text.find("packet length") != std::string::npos) {
        throw HttpError(HttpError::Kind::plain_http, fmt::format("{} does not speak HTTPS ({})", host, text));
      }
      [[fallthrough]];
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
      throw HttpError(HttpError::Kind::tls, fmt::format("TLS with {}: {}", host, text));
    default:
      throw HttpError(HttpError::Kind::broken, fmt::format("{}: {}", host, text));
  }
}

void sleep_for(std::chrono::nanoseconds pause, const std::stop_token& stop) {
  const auto until = std::chrono::steady_clock::now() + pause;
  while (std::chrono::steady_clock::now() < until) {
    if (stop.stop_requested()) throw Cancelled();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

bool worth_retrying(const HttpError& error, bool resumable) {
  switch (error.kind()) {
    case HttpError::Kind::connect:
    case HttpError::Kind::resolve:
      return true;
    case HttpError::Kind::broken:
      return resumable;
    default:
      return false;
  }
}

}  // namespace

std::optional<std::string> HttpResponse::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return std::nullopt;
}

/// Connections at rest, and what they share.
struct Http::Shared {
  std::mutex mutex;
  std::vector<CURL*> idle;
  CURLSH* share = nullptr;
  std::mutex share_locks[CURL_LOCK_DATA_LAST];

  static void lock(CURL*, curl_lock_data data, curl_lock_access, void* user) {
    static_cast<Shared*>(user)->share_locks[data].lock();
  }
  static void unlock(CURL*, curl_lock_data data, void* user) { static_cast<Shared*>(user)->share_locks[data].unlock(); }

  CURL* take() {
    {
      const std::scoped_lock guard(mutex);
      if (!idle.empty()) {
        CURL* curl = idle.back();
        idle.pop_back();
        curl_easy_reset(curl);  // keeps its connections
        return curl;
      }
    }
    CURL* curl = curl_easy_init();
    if (curl == nullptr) throw_error("cannot start libcurl");
    return curl;
  }
  void give_back(CURL* curl) {
    const std::scoped_lock guard(mutex);
    idle.push_back(curl);
  }
};

Http::Http(HttpOptions options) : options_(options), shared_(std::make_unique<Shared>()) {
  static std::once_flag once;
  std::call_once(once, [] {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw_error("cannot start libcurl");
  });
  // Connections cannot be shared between threads; names and TLS sessions can.
  shared_->share = curl_share_init();
  curl_share_setopt(shared_->share, CURLSHOPT_LOCKFUNC, &Shared::lock);
  curl_share_setopt(shared_->share, CURLSHOPT_UNLOCKFUNC, &Shared::unlock);
  curl_share_setopt(shared_->share, CURLSHOPT_USERDATA, shared_.get());
  curl_share_setopt(shared_->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
  curl_share_setopt(shared_->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
}

Http::~Http() {
  for (CURL* curl : shared_->idle) curl_easy_cleanup(curl);
  curl_share_cleanup(shared_->share);
}

namespace {

void set_body(CURL* curl, Exchange& exchange) {
  const HttpRequest& request = *exchange.request;
  if (request.upload_fd >= 0) {
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, &on_read);
    curl_easy_setopt(curl, CURLOPT_READDATA, &exchange);
    curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request.upload_size));
  } else if (request.method == "HEAD") {
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  } else if (request.method != "GET") {
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, request.body.c_str());
  }
  if (request.method != "HEAD") curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
}

void set_tls(CURL* curl, const TlsSettings& tls, bool same_origin) {
  if (!tls.verify) {
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  if (!same_origin) return;
  if (!tls.ca_pem.empty()) {  // takes the place of the system's bundle; the system's directory (CAPATH) stays in force
    curl_blob blob{const_cast<char*>(tls.ca_pem.data()), tls.ca_pem.size(), CURL_BLOB_COPY};
    curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &blob);
  }
  if (!tls.client_cert.empty()) curl_easy_setopt(curl, CURLOPT_SSLCERT, tls.client_cert.c_str());
  if (!tls.client_key.empty()) curl_easy_setopt(curl, CURLOPT_SSLKEY, tls.client_key.c_str());
}

/// One request to `url`, no redirect followed.
void perform(CURL* curl, CURLSH* share, const HttpOptions& options, const std::string& url, Exchange& exchange) {
  const HttpRequest& request = *exchange.request;
  const bool same_origin = url_origin(url) == url_origin(request.url);
  HeaderList headers;
  for (const std::string& line : request.headers) headers.add(line);
  if (same_origin && !request.authorization.empty()) headers.add("Authorization: " + request.authorization);
  headers.add("Expect:");  // one round trip less, and some proxies hang on it
  char detail[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl, CURLOPT_SHARE, share);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
#if LIBCURL_VERSION_NUM >= 0x075500
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "kelp/" KELP_VERSION);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.list);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &exchange);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &exchange);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &exchange);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, static_cast<long>(options.connect_timeout.count()));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options.stall_timeout.count()));
  if (request.sink) curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
  std::string range;
  if (request.sink && exchange.wanted_offset > 0) {
    range = std::to_string(exchange.wanted_offset) + "-";
    curl_easy_setopt(curl, CURLOPT_RANGE, range.c_str());
  }
  set_body(curl, exchange);
  set_tls(curl, request.tls, same_origin);

  exchange.curl = curl;
  const CURLcode code = curl_easy_perform(curl);
  if (exchange.failure) std::rethrow_exception(exchange.failure);
  if (request.stop.stop_requested()) throw Cancelled();
  if (code != CURLE_OK) throw_transport(code, curl, detail, url);
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &exchange.response.status);
}

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/// One attempt: the request and the redirects it leads to.
void attempt(CURL* curl, CURLSH* share, const HttpOptions& options, Exchange& exchange) {
  const HttpRequest& request = *exchange.request;
  std::string url = request.url;
  for (unsigned hops = 0;; ++hops) {
    log::debug("{} {}", request.method, url);
    perform(curl, share, options, url, exchange);
    exchange.response.url = url;
    const auto location = exchange.response.header("location");
    if (!is_redirect(exchange.response.status) || !location) return;
    if (request.method != "GET" && request.method != "HEAD") return;  // an upload's place: the caller's business
    if (hops == kMaxRedirects)
      throw HttpError(HttpError::Kind::refused, fmt::format("{}: too many redirects", request.url));
    std::string next = resolve_url(url, *location);
    if (starts_with(url, "https:") && !starts_with(next, "https:") && request.tls.verify) {
      throw HttpError(HttpError::Kind::refused,
                      fmt::format("{}: redirect from HTTPS to {} refused", request.url, quoted(next)));
    }
    url = std::move(next);
    exchange.response = {};
    exchange.body_started = false;
    curl_easy_reset(curl);
  }
}

/// What the server asks for: seconds, or a date.
std::optional<std::chrono::seconds> retry_after(const HttpResponse& response) {
  const auto value = response.header("retry-after");
  if (!value) return std::nullopt;
  std::optional<std::int64_t> seconds = to_int(*value, 0);
  if (const time_t date = seconds ? -1 : curl_getdate(value->c_str(), nullptr); date >= 0)
    seconds = std::max<std::int64_t>(0, date - ::time(nullptr));
  if (!seconds) return std::nullopt;
  return std::chrono::seconds(std::min<std::int64_t>(*seconds, kMaxPause.count()));
}

std::chrono::nanoseconds pause_before(unsigned failures, const HttpOptions& options, const HttpResponse& response) {
  if (const auto asked = retry_after(response)) return *asked;
  if (options.retry_delay) return *options.retry_delay;
  return std::min<std::chrono::nanoseconds>(std::chrono::milliseconds(300) * (1u << std::min(failures - 1, 10u)),
                                            kMaxPause);
}

}  // namespace

void Http::pause(unsigned failures, const HttpResponse& answer, const std::stop_token& stop) const {
  sleep_for(pause_before(failures, options_, answer), stop);
}

HttpResponse Http::send(const HttpRequest& request) {
  // A body that goes to a sink can be resumed; anything but an upload can be asked again.
  const bool resumable = request.method == "GET" || request.method == "HEAD";
  std::uint64_t offset = request.offset;
  std::uint64_t since_reset = 0;
  for (unsigned failures = 0;;) {
    Exchange exchange;
    exchange.request = &request;
    exchange.wanted_offset = offset;
    CURL* curl = shared_->take();
    std::string problem;
    try {
      attempt(curl, shared_->share, options_, exchange);
      shared_->give_back(curl);
      if (request.once || !may_pass(exchange.response.status) || failures >= options_.retries) {
        exchange.response.delivered = offset + exchange.delivered - request.offset;
        return std::move(exchange.response);
      }
      problem = fmt::format("status {}", exchange.response.status);
    } catch (const HttpError& error) {
      curl_easy_cleanup(curl);  // its connection is in an unknown state
      since_reset += exchange.delivered;
      if (since_reset >= kProgressResetsRetries) failures = 0, since_reset = 0;
      if (request.once || !worth_retrying(error, resumable) || failures >= options_.retries) throw;
      problem = error.message();
    } catch (...) {
      curl_easy_cleanup(curl);
      throw;
    }
    offset += exchange.delivered;
    const auto pause = pause_before(++failures, options_, exchange.response);
    log::debug("{} {}: {}; again in {} ms", request.method, request.url, problem,
               std::chrono::duration_cast<std::chrono::milliseconds>(pause).count());
    sleep_for(pause, request.stop);
  }
}

}  // namespace kelp::image
