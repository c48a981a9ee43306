import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.math.BigInteger;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.security.cert.CRLReason;
import java.security.cert.CertPath;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertPathValidatorException.BasicReason;
import java.security.cert.CertificateFactory;
import java.security.cert.CertificateRevokedException;
import java.security.cert.Extension;
import java.security.cert.PKIXCertPathValidatorResult;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.PKIXRevocationChecker.Option;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What Java's PKIX validator makes of a provider that it knows by its root alone: certificates, OCSP (with a nonce and
 * without), CRLs. It fetches everything from where the certificates say. Every line that it prints is something it has
 * checked; the first thing that is not as it should be ends it with status 1.
 *
 * Run as `java Judge.java`, with the variables of testdata/script in the environment.
 */
public class Judge {
    private static final String CERTIFICATE_POLICIES = "2.5.29.32";
    private static final String QC_STATEMENTS = "1.3.6.1.5.5.7.1.3";
    private static final String OCSP_NONCE = "1.3.6.1.5.5.7.48.1.2";

    private static CertificateFactory factory;
    private static X509Certificate root;
    private static X509Certificate issuer;

    public static void main(String[] args) throws Exception {
        System.setProperty("com.sun.security.enableCRLDP", "true"); // else CRLs are not fetched
        factory = CertificateFactory.getInstance("X.509");
        root = certificate("ROOT");
        issuer = certificate("ISSUER");

        certificate("QCP_N", "0.4.0.194112.1.0");
        certificate("QCP_L", "0.4.0.194112.1.1");
        certificate("QCP_N_QSCD", "0.4.0.194112.1.2");
        certificate("QCP_L_QSCD", "0.4.0.194112.1.3");
        usage("TSA_CERT", "1.3.6.1.5.5.7.3.8");
        usage("OCSP_CERT", "1.3.6.1.5.5.7.3.9");

        for (String name : List.of("QCP_N", "QCP_N_QSCD", "QCP_L", "QCP_L_QSCD", "TSA_CERT")) {
            valid(name, ocsp(null));
            valid(name, ocsp(nonce(32)));
            valid(name, crl());
        }
        valid("QCP_N", ocsp(nonce(1)));
        valid("QCP_N", ocsp(nonce(128)));
        Check named = ocsp(null); // its certificate has id-pkix-ocsp-nocheck and names nobody to ask
        named.checker.setOcspResponder(URI.create(env("OCSP_URL")));
        valid("OCSP_CERT", named);
        valid("QCP_N", wholeChain());
        revoked("REVOKED", ocsp(null));
        revoked("REVOKED", ocsp(nonce(32)));
        revoked("REVOKED", crl());
        revoked("REVOKED", wholeChain());

        // A CRL cannot say of a certificate that it was never issued; OCSP can.
        invalid("NEVER_ISSUED", ocsp(null), BasicReason.UNDETERMINED_REVOCATION_STATUS);
        invalid("NEVER_ISSUED", ocsp(nonce(32)), BasicReason.UNDETERMINED_REVOCATION_STATUS);
        valid("NEVER_ISSUED", crl());

        Check tampered = ocsp(null);
        tampered.checker.setOcspResponder(URI.create(env("TAMPERED_OCSP_URL")));
        tampered.name = "tampered OCSP";
        invalid("QCP_N", tampered, null);
        Check anothers = ocsp(null);
        anothers.checker.setOcspResponses(Map.of(certificate("QCP_N"), Files.readAllBytes(Path.of(args[0]))));
        anothers.name = "the OCSP answer for another certificate";
        invalid("QCP_N", anothers, null);
        say("all as it should be, says Java %s", System.getProperty("java.version"));
    }

    /** One way to look at revocation. The validator wants a new one each time. */
    private static final class Check {
        String name;
        PKIXRevocationChecker checker;
        Set<String> policies = Set.of();

        Check(String name, Option... options) throws GeneralSecurityException {
            this.name = name;
            checker = (PKIXRevocationChecker) CertPathValidator.getInstance("PKIX").getRevocationChecker();
            EnumSet<Option> set = EnumSet.noneOf(Option.class);
            set.addAll(Arrays.asList(options));
            checker.setOptions(set);
        }
    }

    /** OCSP for the end entity and nothing else; the issuing CA's own status is on the root's CRL only. */
    private static Check ocsp(Extension nonce) throws GeneralSecurityException {
        Check c = new Check("OCSP", Option.NO_FALLBACK, Option.ONLY_END_ENTITY);
        if (Boolean.getBoolean("jdk.security.certpath.ocspNonce")) { // newer Java makes one itself, and wants no other
            c.name = "OCSP with Java's own nonce";
        } else if (nonce != null) {
            c.name = "OCSP with a nonce, in DER of " + nonce.getValue().length + " octets";
            c.checker.setOcspExtensions(List.of(nonce));
        }
        return c;
    }

    /** CRLs for the whole chain and nothing else. */
    private static Check crl() throws GeneralSecurityException {
        return new Check("CRLs", Option.PREFER_CRLS, Option.NO_FALLBACK);
    }

    /** As most programs have it: OCSP where there is one, else the CRL. */
    private static Check wholeChain() throws GeneralSecurityException {
        return new Check("OCSP, else CRL");
    }

    /** The extension of RFC 9654 with n random octets. */
    private static Extension nonce(int n) {
        byte[] octets = new byte[n];
        new SecureRandom().nextBytes(octets);
        byte[] value = der(4, octets); // OCTET STRING
        return new Extension() {
            public String getId() { return OCSP_NONCE; }
            public boolean isCritical() { return false; }
            public byte[] getValue() { return value; }
            public void encode(OutputStream out) throws IOException {
                byte[] id = {6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2};
                byte[] wrapped = der(4, value);
                byte[] both = Arrays.copyOf(id, id.length + wrapped.length);
                System.arraycopy(wrapped, 0, both, id.length, wrapped.length);
                out.write(der(0x30, both));
            }
        };
    }

    /** Tag, length and content in DER, for up to 255 octets. */
    private static byte[] der(int tag, byte[] content) {
        ByteArrayOutputStream b = new ByteArrayOutputStream();
        b.write(tag);
        if (content.length > 127) {
            b.write(0x81);
        }
        b.write(content.length);
        b.writeBytes(content);
        return b.toByteArray();
    }

    private static X509Certificate certificate(String name) throws Exception {
        try (InputStream in = Files.newInputStream(Path.of(env(name)))) {
            return (X509Certificate) factory.generateCertificate(in);
        }
    }

    /** What a subscriber's certificate says: the serial number that we asked for, its policy and no other, QCStatements. */
    private static void certificate(String name, String policy) throws Exception {
        X509Certificate c = certificate(name);
        expect(name + " has its serial number", new BigInteger(env(name + "_SERIAL"), 16), c.getSerialNumber());
        expect(name + " is for commitments alone", "[false, true, false, false, false, false, false, false, false]",
            Arrays.toString(c.getKeyUsage()));
        expect(name + " has QCStatements, not critical", true, c.getNonCriticalExtensionOIDs().contains(QC_STATEMENTS));
        expect(name + " is no CA", -1, c.getBasicConstraints());
        Check right = crl();
        right.policies = Set.of(policy);
        PKIXCertPathValidatorResult result = validate(name, right);
        expect(name + " is valid under " + policy, policy,
            result.getPolicyTree().getChildren().next().getChildren().next().getValidPolicy());
        Check wrong = crl();
        wrong.policies = Set.of("0.4.0.2042.1.3");
        wrong.name = "the wrong policy";
        invalid(name, wrong, null);
    }

    private static void usage(String name, String use) throws Exception {
        expect(name + " is for", List.of(use), certificate(name).getExtendedKeyUsage());
    }

    private static PKIXCertPathValidatorResult validate(String name, Check how) throws Exception {
        CertPath path = factory.generateCertPath(List.of(certificate(name), issuer));
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        parameters.addCertPathChecker(how.checker);
        parameters.setExplicitPolicyRequired(!how.policies.isEmpty());
        parameters.setInitialPolicies(how.policies);
        return (PKIXCertPathValidatorResult) CertPathValidator.getInstance("PKIX").validate(path, parameters);
    }

    private static void valid(String name, Check how) throws Exception {
        validate(name, how);
        // With SOFT_FAIL not set a check that could not be made would have failed; this list is empty then.
        expect(name + " is valid by " + how.name, List.of(), how.checker.getSoftFailExceptions());
    }

    private static void revoked(String name, Check how) throws Exception {
        CertPathValidatorException e = invalid(name, how, BasicReason.REVOKED);
        CertificateRevokedException why = (CertificateRevokedException) e.getCause();
        expect(name + " is revoked by " + how.name + " because of", CRLReason.KEY_COMPROMISE, why.getRevocationReason());
        expect(name + " was issued before it was revoked", false, why.getRevocationDate().before(certificate(name).getNotBefore()));
    }

    /** Fails unless the path fails, for the given reason where there is one, at the end entity. */
    private static CertPathValidatorException invalid(String name, Check how, BasicReason reason) throws Exception {
        try {
            validate(name, how);
        } catch (CertPathValidatorException e) {
            if (reason != null) {
                expect(name + " is not valid by " + how.name, reason, e.getReason());
                expect(name + " fails itself, not its CA", 0, e.getIndex());
            } else {
                say("%s is not valid by %s: %s", name, how.name, e.getMessage());
            }
            return e;
        }
        throw new AssertionError(name + " is valid by " + how.name);
    }

    private static void expect(String what, Object want, Object got) {
        if (!want.equals(got)) {
            throw new AssertionError(what + ": " + got + ", want " + want);
        }
        say("%s: %s", what, got);
    }

    private static String env(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new AssertionError("$" + name + " is not set");
        }
        return value;
    }

    private static void say(String format, Object... arguments) {
        System.out.println(String.format(format, arguments));
    }
}
