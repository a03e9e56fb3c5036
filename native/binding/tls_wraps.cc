#include "tls_wraps.h"

#include "env.h"

namespace derplane {
namespace {

constexpr const char* kCertificateError = "ERR_DERP_CERTIFICATE";

TlsConstructors& constructors(Napi::Env env) {
  auto* all = env.GetInstanceData<TlsConstructors>();
  if (all == nullptr) {
    all = new TlsConstructors;
    env.SetInstanceData(all);
  }
  return *all;
}

bool isOf(const Napi::Value& value, const Napi::FunctionReference& constructor) {
  return value.IsObject() && value.As<Napi::Object>().InstanceOf(constructor.Value());
}

CertificatePem pemOf(const Napi::Value& chain, const Napi::Value& key) { return {textOf(chain), textOf(key)}; }

}  // namespace

// --- TlsServer -----------------------------------------------------------------------------------------------------

Napi::Function TlsServerWrap::define(Napi::Env env) {
  const Napi::Function function = DefineClass(
      env, "TlsServer",
      {InstanceMethod("set", &TlsServerWrap::set), InstanceMethod("remove", &TlsServerWrap::remove),
       InstanceMethod("setChallenge", &TlsServerWrap::setChallenge),
       InstanceMethod("removeChallenge", &TlsServerWrap::removeChallenge),
       InstanceMethod("expect", &TlsServerWrap::expect), InstanceMethod("unexpect", &TlsServerWrap::unexpect),
       InstanceMethod("setMeta", &TlsServerWrap::setMeta), InstanceMethod("removeMeta", &TlsServerWrap::removeMeta)});
  constructors(env).server = Napi::Persistent(function);
  return function;
}

std::shared_ptr<TlsServer> TlsServerWrap::from(const Napi::Value& value) {
  if (!isOf(value, constructors(value.Env()).server)) return nullptr;
  return Unwrap(value.As<Napi::Object>())->server_;
}

TlsServerWrap::TlsServerWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<TlsServerWrap>(info), server_(TlsServer::make()) {
  if (server_ == nullptr) throwCode(info.Env(), kCertificateError, "OpenSSL does not start: " + takeOpenSslError());
}

// set(name, [chain, key, chain, key, ...])
Napi::Value TlsServerWrap::set(const Napi::CallbackInfo& info) {
  std::vector<CertificatePem> certificates;
  const auto list = info[1].As<Napi::Array>();
  for (uint32_t i = 0; i + 1 < list.Length(); i += 2) certificates.push_back(pemOf(list.Get(i), list.Get(i + 1)));
  std::string error;
  if (!server_->set(textOf(info[0]), certificates, error)) throwCode(info.Env(), kCertificateError, error);
  return info.Env().Undefined();
}

Napi::Value TlsServerWrap::remove(const Napi::CallbackInfo& info) {
  server_->remove(textOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value TlsServerWrap::setChallenge(const Napi::CallbackInfo& info) {
  std::string error;
  if (!server_->setChallenge(textOf(info[0]), pemOf(info[1], info[2]), error)) {
    throwCode(info.Env(), kCertificateError, error);
  }
  return info.Env().Undefined();
}

Napi::Value TlsServerWrap::removeChallenge(const Napi::CallbackInfo& info) {
  server_->removeChallenge(textOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value TlsServerWrap::expect(const Napi::CallbackInfo& info) {
  server_->expect(textOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value TlsServerWrap::unexpect(const Napi::CallbackInfo& info) {
  server_->unexpect(textOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value TlsServerWrap::setMeta(const Napi::CallbackInfo& info) {
  size_t size = 0;
  const uint8_t* der = bytesOf(info[1], size);
  std::string error;
  const auto relay = static_cast<uint32_t>(numberOf(info[0]));
  if (!server_->setMeta(relay, der, size, error)) throwCode(info.Env(), kCertificateError, error);
  return info.Env().Undefined();
}

Napi::Value TlsServerWrap::removeMeta(const Napi::CallbackInfo& info) {
  server_->removeMeta(static_cast<uint32_t>(numberOf(info[0])));
  return info.Env().Undefined();
}

// --- TlsClient -----------------------------------------------------------------------------------------------------

Napi::Function TlsClientWrap::define(Napi::Env env) {
  return DefineClass(env, "TlsClient", {InstanceMethod("connect", &TlsClientWrap::connect)});
}

TlsClientWrap::TlsClientWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TlsClientWrap>(info) {
  std::string error;
  client_ = TlsClient::make(textOf(info[0]), error);
  if (client_ == nullptr) throwCode(info.Env(), kCertificateError, error);
}

// connect(serverName, verifyHost); undefined instead of a host: the caller verifies.
Napi::Value TlsClientWrap::connect(const Napi::CallbackInfo& info) {
  std::string error;
  const TlsClient::Target target{
      .server_name = textOf(info[0]), .verify = !info[1].IsUndefined(), .verify_host = textOf(info[1])};
  auto session = client_->connect(target, error);
  if (session != nullptr) return TlsSessionWrap::make(info.Env(), std::move(session));
  throwCode(info.Env(), "tls", error);
  return info.Env().Undefined();
}

// --- TlsSession ----------------------------------------------------------------------------------------------------

Napi::Function TlsSessionWrap::define(Napi::Env env) {
  const Napi::Function function = DefineClass(
      env, "TlsSession",
      {InstanceMethod("handshake", &TlsSessionWrap::handshake), InstanceMethod("receive", &TlsSessionWrap::receive),
       InstanceMethod("send", &TlsSessionWrap::send), InstanceMethod("takeOutput", &TlsSessionWrap::takeOutput),
       InstanceMethod("shutdown", &TlsSessionWrap::shutdown),
       InstanceMethod("peerCertificates", &TlsSessionWrap::peerCertificates),
       InstanceAccessor("established", &TlsSessionWrap::getEstablished, nullptr),
       InstanceAccessor("ended", &TlsSessionWrap::getEnded, nullptr),
       InstanceAccessor("version", &TlsSessionWrap::getVersion, nullptr)});
  constructors(env).session = Napi::Persistent(function);
  return function;
}

TlsSessionWrap::TlsSessionWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TlsSessionWrap>(info) {}

Napi::Value TlsSessionWrap::make(Napi::Env env, std::unique_ptr<TlsSession> session) {
  const Napi::Object object = constructors(env).session.New({});
  Unwrap(object)->session_ = std::move(session);
  return object;
}

std::unique_ptr<TlsSession> TlsSessionWrap::takeFrom(const Napi::Value& value) {
  if (!isOf(value, constructors(value.Env()).session)) return nullptr;
  return std::move(Unwrap(value.As<Napi::Object>())->session_);
}

bool TlsSessionWrap::present(Napi::Env env) {
  if (session_ != nullptr) return true;
  throwCode(env, "tls", "the TLS connection was given away");
  return false;
}

void TlsSessionWrap::throwFailure(Napi::Env env) { throwCode(env, "tls", session_->failure()); }

Napi::Value TlsSessionWrap::handshake(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!present(env)) return env.Undefined();
  const SecureSession::Status status = session_->handshake();
  if (status == SecureSession::Status::kFailed) throwFailure(env);
  return Napi::Boolean::New(env, status == SecureSession::Status::kOk);
}

Napi::Value TlsSessionWrap::receive(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!present(env)) return env.Undefined();
  size_t size = 0;
  const uint8_t* bytes = bytesOf(info[0], size);
  session_->feed(bytes, size);
  std::vector<uint8_t> plaintext;
  for (;;) {
    const size_t before = plaintext.size();
    plaintext.resize(before + SecureSession::kMaxRecord);
    size_t got = 0;
    const SecureSession::Status status = session_->read(plaintext.data() + before, SecureSession::kMaxRecord, got);
    plaintext.resize(before + got);
    if (status == SecureSession::Status::kOk) continue;
    // A failure shows again in the next call: first comes what was well.
    if (status != SecureSession::Status::kFailed || before > 0) break;
    throwFailure(env);
    return env.Undefined();
  }
  return Napi::Buffer<uint8_t>::Copy(env, plaintext.data(), plaintext.size());
}

Napi::Value TlsSessionWrap::send(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!present(env)) return env.Undefined();
  iovec iov{};
  iov.iov_base = const_cast<uint8_t*>(bytesOf(info[0], iov.iov_len));
  if (iov.iov_len > 0 && session_->write(&iov, 1, iov.iov_len) == 0) throwFailure(env);
  return env.Undefined();
}

Napi::Value TlsSessionWrap::takeOutput(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!present(env)) return env.Undefined();
  const std::vector<uint8_t> output = session_->takeOutput();
  return Napi::Buffer<uint8_t>::Copy(env, output.data(), output.size());
}

Napi::Value TlsSessionWrap::shutdown(const Napi::CallbackInfo& info) {
  if (present(info.Env())) session_->shutdown();
  return info.Env().Undefined();
}

Napi::Value TlsSessionWrap::peerCertificates(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!present(env)) return env.Undefined();
  const auto list = Napi::Array::New(env);
  for (const auto& der : session_->peerCertificates()) {
    list.Set(list.Length(), Napi::Buffer<uint8_t>::Copy(env, der.data(), der.size()));
  }
  return list;
}

Napi::Value TlsSessionWrap::getEstablished(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), session_ != nullptr && session_->established());
}

Napi::Value TlsSessionWrap::getEnded(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), session_ != nullptr && session_->ended());
}

Napi::Value TlsSessionWrap::getVersion(const Napi::CallbackInfo& info) {
  const bool known = session_ != nullptr && session_->established();
  return Napi::String::New(info.Env(), !known ? "" : session_->isTls13() ? "1.3" : "1.2");
}

}  // namespace derplane
