// The half of the distribution API that writes. One blob on its way:
//
//     HEAD blob ─ there already
//     POST uploads/?mount=…&from=… ─ taken from a neighbour
//     POST uploads/ ─ PUT the whole ─ done
//                        └ refused or broken: PATCH piece by piece from where the registry says it stands, then PUT
//
// source: OCI distribution-spec v1.1, "Push"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/registry.h"
#include "image/url.h"

namespace kelp::image {

namespace {

/// Small enough for every proxy that was ever configured, large enough not to matter.
constexpr std::uint64_t kPieceBytes = 8U << 20U;
constexpr unsigned kMaxRedirects = 10;

std::string with_query(const std::string& url, const std::string& query) {
  return url + (url.find('?') == std::string::npos ? "?" : "&") + query;
}

/// Bytes that an upload has so far, from "Range: 0-1234"; nullopt when the answer does not say.
std::optional<std::uint64_t> bytes_there(const HttpResponse& response) {
  std::string range = response.header("range").value_or("");
  if (starts_with(range, "bytes=")) range = range.substr(6);
  const size_t dash = range.find('-');
  if (dash == std::string::npos) return std::nullopt;
  const auto last = to_int(range.substr(dash + 1), 0);
  if (!last) return std::nullopt;
  return *last == 0 ? 0 : static_cast<std::uint64_t>(*last) + 1;  // "0-0" is how registries write "nothing yet"
}

std::string place_of(const HttpResponse& response, const std::string& before) {
  const auto location = response.header("location");
  return location ? resolve_url(response.url, *location) : before;
}

}  // namespace

bool Registry::has_blob(const DigestName& digest) {
  connect();
  HttpRequest request;
  request.method = "HEAD";
  request.url = url("/blobs/" + digest.str());
  const HttpResponse response = ask(std::move(request));
  if (response.status == 404) return false;
  if (response.status != 200) throw_status(response, "look for blob " + digest.str());
  return true;
}

bool Registry::has_manifest(const DigestName& digest) {
  connect();
  HttpRequest request;
  request.method = "HEAD";
  request.url = url("/manifests/" + digest.str());
  request.headers.emplace_back(
      "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
      "application/vnd.docker.distribution.manifest.v2+json, "
      "application/vnd.docker.distribution.manifest.list.v2+json");
  return ask(std::move(request)).status == 200;
}

/// A host that is not the registry's gets neither credentials nor client certificate.
HttpResponse Registry::ask_elsewhere(HttpRequest request) {
  request.tls = tls_;
  request.tls.client_cert.clear();
  request.tls.client_key.clear();
  if (starts_with(base_, "https:") && !starts_with(request.url, "https:")) {
    throw_error("{}: an upload to {} without TLS refused", source_.name.registry, kelp::quoted(request.url));
  }
  return http_.send(request);
}

/// A request that writes. The place of an upload may be on another host, and so may what a redirect leads to (307 and
/// 308: the same request there).
HttpResponse Registry::ask_at(HttpRequest request) {
  for (unsigned hops = 0;; ++hops) {
    HttpResponse response = url_origin(request.url) == url_origin(base_) ? ask(request) : ask_elsewhere(request);
    const auto location = response.header("location");
    const bool redirected = (response.status == 307 || response.status == 308) && location;
    if (!redirected || hops == kMaxRedirects) return response;
    request.url = resolve_url(response.url, *location);
  }
}

/// Where to send the blob; mounted = true and "" when a neighbour had it.
std::string Registry::start_upload(const BlobUpload& upload, bool& mounted) {
  const auto start = [&](const std::string& query) {
    HttpRequest request;
    request.method = "POST";
    request.url = url("/blobs/uploads/") + query;
    request.stop = upload.stop;
    return ask_at(std::move(request));
  };
  for (const std::string& from : upload.elsewhere) {
    const HttpResponse response =
        start(fmt::format("?mount={}&from={}", url_encode(upload.digest.str()), url_encode(from)));
    if (response.status == 201) {
      mounted = true;
      return "";
    }
    // 202: it has begun an upload instead. Anything else (no access to the neighbour): ask plainly.
    if (response.status == 202) return place_of(response, "");
    log::debug("mount blob {} from {}: status {}", upload.digest.str(), from, response.status);
  }
  const HttpResponse response = start("");
  if (response.status != 202) throw_status(response, "push to " + source_.name.repository);
  const std::string place = place_of(response, "");
  if (place.empty()) throw_error("{}: its answer does not say where to upload to", source_.name.registry);
  return place;
}

/// false: try in pieces.
bool Registry::try_whole(const BlobUpload& upload, const std::string& place) {
  HttpRequest request;
  request.method = "PUT";
  request.url = with_query(place, "digest=" + url_encode(upload.digest.str()));
  request.headers.emplace_back("Content-Type: application/octet-stream");
  request.upload_fd = upload.fd;
  request.upload_size = upload.size;
  request.upload_progress = upload.progress;
  request.stop = upload.stop;
  request.once = true;
  try {
    const HttpResponse response = ask_at(std::move(request));
    if (response.status == 201 || response.status == 204) return true;
    if (response.status == 413) return false;
    if (Http::may_pass(response.status)) {
      http_.pause(1, response, upload.stop);
      return false;
    }
    throw_status(response, "upload blob " + upload.digest.str());
  } catch (const HttpError& error) {
    // A proxy that finds the body too large may just hang up.
    if (!Http::may_pass(error)) throw;
    log::debug("upload blob {}: {}", upload.digest.str(), error.message());
    return false;
  }
}

void Registry::send_pieces(const BlobUpload& upload, std::string place) {
  std::uint64_t at = 0;
  unsigned failures = 0;
  const auto failed = [&](const std::string& problem, const HttpResponse& answered) {
    if (++failures > http_.options().retries) {
      throw_error("{}: upload blob {}: {}", source_.name.registry, upload.digest.str(), problem);
    }
    log::debug("upload blob {} at {}: {}", upload.digest.str(), at, problem);
    http_.pause(failures, answered, upload.stop);
    // Where does the upload stand? One that is lost begins anew.
    HttpRequest question;
    question.url = place;
    question.stop = upload.stop;
    const HttpResponse answer = ask_at(std::move(question));
    if (const auto there = bytes_there(answer); answer.status == 204 && there && *there <= upload.size) {
      at = *there;
      place = place_of(answer, place);
    } else {
      bool mounted = false;
      BlobUpload fresh = upload;
      fresh.elsewhere.clear();
      place = start_upload(fresh, mounted);
      at = 0;
    }
  };
  for (bool done = false; !done;) {
    const bool last = at == upload.size;
    HttpRequest request;
    request.once = true;
    request.stop = upload.stop;
    const std::uint64_t count = std::min(kPieceBytes, upload.size - at);
    if (last) {
      request.method = "PUT";
      request.url = with_query(place, "digest=" + url_encode(upload.digest.str()));
    } else {
      request.method = "PATCH";
      request.url = place;
      request.headers = {"Content-Type: application/octet-stream",
                         fmt::format("Content-Range: {}-{}", at, at + count - 1)};
      request.upload_fd = upload.fd;
      request.upload_offset = at;
      request.upload_size = count;
      if (upload.progress) request.upload_progress = [&upload, at](std::uint64_t sent) { upload.progress(at + sent); };
    }
    try {
      const HttpResponse response = ask_at(std::move(request));
      if (last && (response.status == 201 || response.status == 204)) {
        done = true;
      } else if (!last && (response.status == 202 || response.status == 204)) {
        place = place_of(response, place);
        at += count;
        failures = 0;
      } else if (Http::may_pass(response.status) || response.status == 416 || response.status == 404) {
        failed(fmt::format("status {}", response.status), response);
      } else {
        throw_status(response, "upload blob " + upload.digest.str());
      }
    } catch (const HttpError& error) {
      if (!Http::may_pass(error)) throw;
      failed(error.message(), {});
    }
  }
}

UploadOutcome Registry::put_blob(const BlobUpload& upload) {
  if (!upload.asked && has_blob(upload.digest)) return UploadOutcome::existed;
  bool mounted = false;
  const std::string place = start_upload(upload, mounted);
  if (mounted) return UploadOutcome::mounted;
  if (!try_whole(upload, place)) {
    BlobUpload rest = upload;
    rest.elsewhere.clear();
    send_pieces(rest, start_upload(rest, mounted));
  }
  return UploadOutcome::uploaded;
}

void Registry::put_manifest(const std::string& reference, const std::string& text, const std::string& media_type) {
  connect();
  HttpRequest request;
  request.method = "PUT";
  request.url = url("/manifests/" + reference);
  request.headers.push_back("Content-Type: " + media_type);
  request.body = text;
  const HttpResponse response = ask_at(std::move(request));
  if (response.status != 201 && response.status != 200 && response.status != 202) {
    throw_status(response, "write manifest " + reference);
  }
  const std::string stored = response.header("docker-content-digest").value_or("");
  if (const std::string sent = sha256_of(text).str(); starts_with(stored, "sha256:") && stored != sent) {
    throw_error("{}: manifest {}: the registry stored {} in its place", source_.name.registry, sent, stored);
  }
}

}  // namespace kelp::image
