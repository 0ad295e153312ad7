//! TLS of a client that trusts whom `SSL_CERT_FILE` names, as many do. Without it any certificate is believed: the authority of the world
//! outside of the demo is made anew with each cluster, and nobody's system has it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::net::Failure;

pub fn client(host: &str) -> Result<ClientConnection, Failure> {
    let other = |error: Error| Failure::Other(error.to_string());
    let name = ServerName::try_from(host.to_owned()).map_err(|e| Failure::Other(e.to_string()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions().map_err(other)?;
    let config = match std::env::var("SSL_CERT_FILE") {
        Ok(file) => config.with_root_certificates(roots(&file)?),
        Err(_) => config.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate)),
    };
    let config = config.with_no_client_auth();
    ClientConnection::new(Arc::new(config), name).map_err(other)
}

fn roots(file: &str) -> Result<RootCertStore, Failure> {
    let unread = |error: &dyn std::fmt::Display| Failure::Other(format!("{file}: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unread(&e))? {
        roots.add(certificate.map_err(|e| unread(&e))?).map_err(|e| unread(&e))?;
    }
    Ok(roots)
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
