package policy

import "strings"

// isoCountries are the codes ISO 3166-1 alpha-2 assigns. The maintenance agency changes the
// list about once in a decade; the table is ours because language.ParseRegion also knows codes
// that are reserved (EU, AC) or users' own (XK), and renames old ones (BU, DD).
const isoCountries = " AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ" +
	" BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ" +
	" CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ" +
	" DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR" +
	" GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY" +
	" HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP" +
	" KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY" +
	" MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ" +
	" NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY" +
	" QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ" +
	" TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ" +
	" VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW "

// isCountry reports whether code is assigned by ISO 3166-1 alpha-2, in upper case.
func isCountry(code string) bool { return isListed(isoCountries, code) }

// isListed reports whether the two-letter code stands in a list of codes between spaces.
func isListed(list, code string) bool {
	return len(code) == 2 && isUpperAlpha(code) && strings.Contains(list, " "+code+" ")
}

// transnationalCodes may stand for a country in an identifier (EN 319 412-1 GEN-5.1.1-01).
const transnationalCodes = " EU UN "

// globalCode marks an identifier scheme of the whole world (EN 319 412-1 GEN-5.1.1-02).
const globalCode = "XG"

// userDefinedCodes are codes for users' own that we let into identifiers: XK is what the
// EU's institutions write for Kosovo. EN 319 412-1 GEN-5.1.1-03 lets an issuer use such codes.
const userDefinedCodes = " XK "

// nearCountry says what a wrong code was probably meant to be, as the end of a sentence.
func nearCountry(code string) string {
	upper := strings.ToUpper(code)
	switch {
	case isCountry(upper):
		return ": write " + upper
	case upper == "UK" || upper == "XI":
		return ": the United Kingdom is GB"
	case upper == "EL":
		return ": Greece is GR"
	}
	return ""
}

func isUpperAlpha(s string) bool {
	for _, r := range s {
		if r < 'A' || r > 'Z' {
			return false
		}
	}
	return true
}
