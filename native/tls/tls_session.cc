#include "tls_session.h"

#include <algorithm>
#include <cstring>

namespace derplane {
namespace {

// What a plain HTTP client gets on a TLS port, as from Go's server.
constexpr char kPlainHttpAnswer[] = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

}  // namespace

std::unique_ptr<TlsSession> TlsSession::make(Ssl ssl) {
  if (ssl == nullptr) return nullptr;
  std::unique_ptr<TlsSession> session(new TlsSession(std::move(ssl)));
  session->span_.output = &session->own_output_;
  BIO* bio = SpanBio::make(&session->span_);
  if (bio == nullptr) return nullptr;
  SSL* raw = session->ssl_.get();
  SSL_set_bio(raw, bio, bio);
  SSL_set_app_data(raw, session.get());
  SSL_set_msg_callback(raw, onMessage);
  SSL_set_msg_callback_arg(raw, session.get());
  return session;
}

TlsSession& TlsSession::of(const SSL* ssl) { return *static_cast<TlsSession*>(SSL_get_app_data(ssl)); }

// Called for every record and message. A stranger who only sends records without data keeps us busy in vain, and
// one who sends a byte of data between them nearly as much: a KeyUpdate costs us what twenty records of data do.
void TlsSession::onMessage(int write, int, int type, const void* data, size_t size, SSL* ssl, void* self) {
  if (write != 0 || size == 0 || SSL_is_init_finished(ssl) == 0) return;
  if (type != (SSL_version(ssl) == TLS1_3_VERSION ? SSL3_RT_INNER_CONTENT_TYPE : SSL3_RT_HEADER)) return;
  auto& session = *static_cast<TlsSession*>(self);
  if (*static_cast<const uint8_t*>(data) == SSL3_RT_APPLICATION_DATA) {
    session.useless_in_a_row_ = 0;
    if (++session.data_records_ % kDataPerUselessRecord == 0 && session.useless_owed_ > 0) --session.useless_owed_;
  } else if (++session.useless_in_a_row_ > kMaxUselessInARow || ++session.useless_owed_ > kMaxUselessOwed) {
    session.span_.blocked = true;
  }
}

void TlsSession::feed(const uint8_t* data, size_t size) {
  if (!established()) {
    handshake_bytes_ += size;
    if (SSL_is_server(ssl_.get()) == 1 && !hello_guard_.passes(data, size)) {
      failure_ = "the client's greeting is too long";
      span_.blocked = true;
    }
  }
  if (unread_.empty()) {
    span_.data = data;
    span_.left = size;
    return;
  }
  const size_t had = unread_.size();
  unread_.resize(had + size);
  std::copy_n(data, size, unread_.data() + had);
  span_.data = unread_.data();
  span_.left = unread_.size();
}

// What OpenSSL has not taken outlives the buffer that it was fed from.
void TlsSession::keepUnread() {
  unread_ = std::vector<uint8_t>(span_.data, span_.data + span_.left);
  span_.data = unread_.data();
  span_.left = unread_.size();
}

SecureSession::Status TlsSession::read(uint8_t* to, size_t room, size_t& got) {
  got = 0;
  if (failed_) return Status::kFailed;
  if (ended_) return Status::kEnd;
  forgetOpenSslErrors();
  const int result = SSL_read_ex(ssl_.get(), to, room, &got);
  if (result == 1) return Status::kOk;
  got = 0;
  return statusOf(result);
}

SecureSession::Status TlsSession::handshake() {
  if (failed_) return Status::kFailed;
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  return result == 1 ? Status::kOk : statusOf(result);
}

SecureSession::Status TlsSession::statusOf(int result) {
  const int error = SSL_get_error(ssl_.get(), result);
  if (span_.blocked) return fail("too many records without data");
  switch (error) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
      if (!established() && handshake_bytes_ > kMaxHandshakeBytes) return fail("the handshake is too long");
      keepUnread();
      return error == SSL_ERROR_WANT_READ ? Status::kWantBytes : Status::kWantCertificate;
    case SSL_ERROR_ZERO_RETURN:
      ended_ = true;
      return Status::kEnd;
    default:
      break;
  }
  if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST) {
    span_.output->assign(std::begin(kPlainHttpAnswer), std::end(kPlainHttpAnswer) - 1);
  }
  const long verified = SSL_get_verify_result(ssl_.get());
  if (verified != X509_V_OK && SSL_get_verify_mode(ssl_.get()) != SSL_VERIFY_NONE) {
    ERR_clear_error();
    return fail(std::string("certificate: ") + X509_verify_cert_error_string(verified));
  }
  return fail(takeOpenSslError());
}

SecureSession::Status TlsSession::fail(std::string why) {
  failed_ = true;
  if (failure_.empty()) failure_ = std::move(why);
  span_.left = 0;
  return Status::kFailed;
}

// Small pieces are gathered, so that a record carries what a turn brought and not one frame each.
size_t TlsSession::write(const iovec* iov, uint32_t count, size_t max) {
  thread_local uint8_t plaintext[kMaxRecord];
  if (failed_) return 0;
  forgetOpenSslErrors();
  size_t sealed = 0;
  size_t filled = 0;
  const auto seal = [&](const uint8_t* data, size_t size) {
    size_t written = 0;
    if (SSL_write_ex(ssl_.get(), data, size, &written) != 1) {
      fail(takeOpenSslError());
      return false;
    }
    sealed += size;
    return true;
  };
  for (uint32_t i = 0; i < count && max > 0; ++i) {
    const auto* at = static_cast<const uint8_t*>(iov[i].iov_base);
    size_t left = std::min(iov[i].iov_len, max);
    max -= left;
    while (left > 0) {
      const size_t part = std::min(left, kMaxRecord - filled);
      if (part == kMaxRecord) {  // a whole record lies there already
        if (!seal(at, part)) return 0;
      } else {
        std::memcpy(plaintext + filled, at, part);
        filled += part;
        if (filled == kMaxRecord) {
          if (!seal(plaintext, filled)) return 0;
          filled = 0;
        }
      }
      at += part;
      left -= part;
    }
  }
  if (filled > 0 && !seal(plaintext, filled)) return 0;
  return sealed;
}

void TlsSession::shutdown() {
  if (failed_ || !established()) return;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

std::vector<std::vector<uint8_t>> TlsSession::peerCertificates() const {
  std::vector<std::vector<uint8_t>> list;
  const STACK_OF(X509)* chain = SSL_get_peer_cert_chain(ssl_.get());
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    uint8_t* der = nullptr;
    const int size = i2d_X509(sk_X509_value(chain, i), &der);
    if (size > 0) list.emplace_back(der, der + size);
    OPENSSL_free(der);
  }
  return list;
}

}  // namespace derplane
