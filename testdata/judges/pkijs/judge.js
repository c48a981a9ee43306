// Judges certificates, CRLs, OCSP answers and time-stamp tokens with pkijs: nothing here knows how they were made.
//
//	node judge.js chain ROOT INTERMEDIATE CERT [CRL…]       path validation (RFC 5280 §6), with CRLs where some are given
//	node judge.js crl ISSUER CRL CERT                       signature of the CRL, and whether CERT is on it
//	node judge.js ocsp URL ISSUER CERT HASH [tamper]        asks (CertIDs made with HASH), verifies, prints the status
//	node judge.js stamp URL ROOT INTERMEDIATE TSU FILE HASH [nocert|tamper]
//	                                                        asks for a token of FILE and verifies it up to ROOT
//
// Certificates are PEM files, CRLs DER. What holds is printed, one fact a line; what does not ends with status 1. Several commands
// may stand in one line, with -- between them; `refuse` before one wants it refused, and prints why it was.
"use strict";
const { readFileSync } = require("node:fs");
const { createHash, webcrypto } = require("node:crypto");
const asn1js = require("asn1js");
const pkijs = require("pkijs");

pkijs.setEngine("node", new pkijs.CryptoEngine({ name: "node", crypto: webcrypto }));

const nonceOID = "1.3.6.1.5.5.7.48.1.2"; // id-pkix-ocsp-nonce

// Imprint hashes, in node's names, and their identifiers.
const hashes = {
  sha256: "2.16.840.1.101.3.4.2.1",
  sha384: "2.16.840.1.101.3.4.2.2",
  sha512: "2.16.840.1.101.3.4.2.3",
  "sha3-256": "2.16.840.1.101.3.4.2.8", // which pkijs does not know: docs/judges.md
};

function must(held, what) {
  if (!held) throw new Error(what);
}

function equal(a, b) {
  return Buffer.from(a).equals(Buffer.from(b));
}

function bytes(file) {
  return new Uint8Array(readFileSync(file)).buffer;
}

function certificate(file) {
  const pem = readFileSync(file, "latin1").match(/-----BEGIN CERTIFICATE-----([^-]*)-----END/);
  must(pem, `${file} holds no certificate`);
  return pkijs.Certificate.fromBER(new Uint8Array(Buffer.from(pem[1], "base64")).buffer);
}

async function post(url, type, body) {
  const reply = await fetch(url, { method: "POST", headers: { "Content-Type": type }, body });
  must(reply.status === 200, `${url} answered ${reply.status}`);
  return reply.arrayBuffer();
}

// verifies wants true, and nothing like it, of what pkijs judged.
async function verifies(what, judged) {
  must((await judged) === true, `${what} does not verify`);
}

async function chain(root, intermediate, cert, ...crls) {
  const engine = new pkijs.CertificateChainValidationEngine({
    trustedCerts: [certificate(root)],
    certs: [certificate(intermediate), certificate(cert)],
    crls: crls.map((file) => pkijs.CertificateRevocationList.fromBER(bytes(file))),
  });
  const { result, resultMessage } = await engine.verify();
  must(result, `chain refused: ${resultMessage}`);
  console.log("chain: valid");
}

async function crl(issuer, file, cert) {
  const list = pkijs.CertificateRevocationList.fromBER(bytes(file));
  await verifies("CRL", list.verify({ issuerCertificate: certificate(issuer) }));
  console.log("CRL: verified");
  console.log(list.isCertificateRevoked(certificate(cert)) ? "status: revoked" : "status: not on the CRL");
}

async function ocsp(url, issuerFile, certFile, hash, how) {
  const issuer = certificate(issuerFile), cert = certificate(certFile);
  const request = new pkijs.OCSPRequest();
  await request.createForCertificate(cert, { hashAlgorithm: hash, issuerCertificate: issuer });
  const nonce = new asn1js.OctetString({ valueHex: webcrypto.getRandomValues(new Uint8Array(16)).buffer }).toBER(false);
  request.tbsRequest.requestExtensions = [new pkijs.Extension({ extnID: nonceOID, extnValue: nonce })];

  const response = pkijs.OCSPResponse.fromBER(await post(url, "application/ocsp-request", request.toSchema(true).toBER(false)));
  must(response.responseStatus.valueBlock.valueDec === 0, `responseStatus ${response.responseStatus.valueBlock.valueDec}`);
  const basic = pkijs.BasicOCSPResponse.fromBER(response.responseBytes.response.valueBlock.valueHexView);
  if (how === "tamper") basic.signature.valueBlock.valueHexView[40] ^= 1;
  await verifies("OCSP answer", basic.verify({ trustedCerts: [issuer] }));
  console.log("OCSP answer: verified");
  const back = (basic.tbsResponseData.responseExtensions ?? []).find((e) => e.extnID === nonceOID);
  must(back && equal(back.extnValue.valueBlock.valueHexView, nonce), "the nonce did not come back");
  console.log("nonce: ours");
  const { isForCertificate, status } = await basic.getCertificateStatus(cert, issuer);
  must(isForCertificate, "the answer is about another certificate");
  console.log("status: " + ["good", "revoked", "unknown"][status]);
  const single = basic.tbsResponseData.responses[0];
  must(single.thisUpdate <= new Date() && new Date() < single.nextUpdate, "the answer is not of now");
  console.log("thisUpdate, nextUpdate: around now");
}

async function stamp(url, root, intermediate, tsu, file, hash, how) {
  const data = bytes(file);
  const nonce = webcrypto.getRandomValues(new Uint8Array(8));
  nonce[0] = (nonce[0] & 0x7f) | 0x40; // a positive INTEGER of eight octets
  const imprint = new Uint8Array(createHash(hash).update(Buffer.from(data)).digest()).buffer;
  const request = new pkijs.TimeStampReq({
    version: 1,
    messageImprint: new pkijs.MessageImprint({
      hashAlgorithm: new pkijs.AlgorithmIdentifier({ algorithmId: hashes[hash] }),
      hashedMessage: new asn1js.OctetString({ valueHex: imprint }),
    }),
    nonce: new asn1js.Integer({ valueHex: nonce.buffer }),
    certReq: how !== "nocert",
  });

  const response = pkijs.TimeStampResp.fromBER(await post(url, "application/timestamp-query", request.toSchema().toBER(false)));
  must(response.status.status === pkijs.PKIStatus.granted, `PKIStatus ${response.status.status}`);
  const signed = new pkijs.SignedData({ schema: response.timeStampToken.content });
  must((signed.certificates ?? []).length > 0 === (how !== "nocert"), `${(signed.certificates ?? []).length} certificates in the token`);
  if (how === "nocert") signed.certificates = [certificate(tsu), certificate(intermediate)]; // the verifier brings them
  const judged = how === "tamper" ? new TextEncoder().encode("another document").buffer : data;
  const { signatureVerified } = await signed.verify({
    signer: 0, data: judged, trustedCerts: [certificate(root)], checkChain: true, extendedMode: true,
  });
  must(signatureVerified, "the token does not verify");
  console.log("token: verified");
  fields(pkijs.TSTInfo.fromBER(signed.encapContentInfo.eContent.getValue()), imprint, nonce);
}

// fields compares TSTInfo with the request and prints the rest.
function fields(info, imprint, nonce) {
  must(equal(info.messageImprint.hashedMessage.valueBlock.valueHexView, imprint), "the imprint is not ours");
  must(equal(info.nonce.valueBlock.valueHexView, nonce), "the nonce is not ours");
  console.log("messageImprint, nonce: ours");
  must(Math.abs(info.genTime - new Date()) < 60000, `genTime ${info.genTime}`);
  console.log("genTime: now");
  console.log(`policy: ${info.policy}`);
  console.log(`accuracy: ${info.accuracy.seconds ?? 0} s ${info.accuracy.millis ?? 0} ms ${info.accuracy.micros ?? 0} us`);
  console.log(`ordering: ${info.ordering ?? false}`);
  console.log(`extensions: ${(info.extensions ?? []).map((e) => e.extnID)}`);
}

const commands = { chain, crl, ocsp, stamp };

async function run(words) {
  const wantsRefusal = words[0] === "refuse";
  const [command, ...args] = wantsRefusal ? words.slice(1) : words;
  must(commands[command], `no command ${command}`);
  console.log(`> ${command} ${args.join(" ")}`);
  try {
    await commands[command](...args);
  } catch (e) {
    if (!wantsRefusal) throw e;
    console.log(`refused: ${e.message ?? e}`);
    return;
  }
  must(!wantsRefusal, `${command} was not refused`);
}

async function main(words) {
  for (let end; words.length > 0; words = words.slice(end + 1)) {
    end = words.indexOf("--");
    if (end < 0) end = words.length;
    await run(words.slice(0, end));
  }
}

main(process.argv.slice(2)).catch((e) => {
  console.error(e.message ?? e);
  process.exitCode = 1;
});
